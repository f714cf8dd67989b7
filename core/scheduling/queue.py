"""The queue of a pool in Postgres, as the selection asks of it; under the pool's lock."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from core.scheduling import statements
from core.scheduling.fairshare import Batch, Share, Waiting

_HEAD_MOVES_MS = 1000  # by less, entries of jobs that were taken are not worth skipping


class SqlQueue:
    """One pool's queue, in the caller's transaction."""

    def __init__(self, session: Session, pool: str, worker_id: str) -> None:
        """Take the pool's lock until commit, and fold in what was noted since the last claim."""
        self.pool = pool
        self._session = session
        self._worker_id = worker_id
        self._pool = {"pool": pool}
        session.execute(statements.LOCK_POOL, self._pool)
        session.execute(statements.FOLD_NOTES, self._pool)

    def leaders(self, passed_over: Collection[str], limit: int) -> list[Share]:
        """As `Queue` has it."""
        values = {**self._pool, "passed_over": list(passed_over), "limit": limit, "worker_id": self._worker_id}
        return [Share(**row._mapping) for row in self._session.execute(statements.LEADERS, values)]

    def heads(self, share: Share, limit: int) -> list[Waiting]:
        """As `Queue` has it."""
        where = {**self._of(share), "head_key": share.head_key, "limit": limit}
        heads = [Waiting(**row._mapping) for row in self._session.execute(statements.HEADS, where)]
        if heads and heads[0].sort_key - share.head_key > _HEAD_MOVES_MS and self._hold(share):
            self._session.execute(statements.MOVE_HEAD, self._of(share))
        return heads

    def lane_heads(self, lane: str, shares: Sequence[Share], limit: int) -> list[Waiting]:
        """As `Queue` has it."""
        values = {
            **self._pool,
            "lane": lane,
            "tenant_ids": [share.tenant_id for share in shares],
            "head_keys": [share.head_key for share in shares],
            "limit": limit,
        }
        return [Waiting(**row._mapping) for row in self._session.execute(statements.LANE_HEADS, values)]

    def let_sleep(self, share: Share) -> bool:
        """As `Queue` has it."""
        if not self._hold(share):
            return False
        self._session.execute(statements.LET_SLEEP, {**self._of(share), "head_key": share.head_key})
        return True

    def unqueue(self, job_ids: Sequence[str]) -> None:
        """Take jobs that were claimed out of the queue."""
        if job_ids:
            self._session.execute(statements.UNQUEUE, {"ids": list(job_ids)})

    def drop_stale(self, job_ids: Sequence[str]) -> None:
        """Take out what can never be claimed, should there be any, or its tenant would lead in vain for ever."""
        if job_ids:
            self._session.execute(statements.DROP_STALE, {"ids": list(job_ids)})

    def advance(self, batch: Batch) -> None:
        """Move the pool's time on to that of the batch's leader."""
        self._session.execute(statements.ADVANCE_POOL, {**self._pool, "vtime": batch.vtime})
        if batch.passed_over:
            late = {**self._pool, "vtime": batch.vtime, "tenant_ids": list(batch.passed_over)}
            self._session.execute(statements.KEEP_UP, late)

    def _hold(self, share: Share) -> bool:
        """Keep new jobs of a tenant from being written until commit; False while one is just being written."""
        return self._session.execute(statements.HOLD_TENANT, self._of(share)).one_or_none() is not None

    def _of(self, share: Share) -> dict[str, str]:
        return {**self._pool, "tenant_id": share.tenant_id}
