"""The queue of a pool in Postgres, as the selection asks of it; under the pool's lock."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import TextClause
from sqlalchemy.orm import Session

from core.db.pipeline import BY_INDEX, Call, Rows, exchange
from core.scheduling import statements
from core.scheduling.fairshare import Batch, Share, Waiting

_HEAD_MOVES_MS = 1000  # by less, entries of jobs that were taken are not worth skipping


class SqlQueue:
    """One pool's queue, in the caller's transaction."""

    def __init__(self, session: Session, pool: str, worker_id: str) -> None:
        """Ask nothing yet."""
        self._session = session
        self._worker_id = worker_id
        self._pool = {"pool": pool}
        # Sent with the first question: take the pool's lock until commit, and fold in what was noted since the last.
        self._opening: tuple[Call, ...] = (
            (statements.LOCK_POOL, self._pool),
            BY_INDEX,
            (statements.FOLD_NOTES, self._pool),
        )

    def leaders(self, passed_over: Collection[str], limit: int) -> list[Share]:
        """As `Queue` has it; asked first of all."""
        values = {**self._pool, "passed_over": list(passed_over), "limit": limit, "worker_id": self._worker_id}
        *_, rows = exchange(self._session, *self._opening, (statements.LEADERS, values))
        self._opening = ()
        return [Share(**row) for row in rows]

    def heads(self, share: Share, limit: int) -> list[Waiting]:
        """As `Queue` has it."""
        (rows,) = exchange(self._session, (statements.HEADS, self._of(share) | {"limit": limit}))
        heads = [Waiting(**row) for row in rows]
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
        (rows,) = exchange(self._session, (statements.LANE_HEADS, values))
        return [Waiting(**row) for row in rows]

    def let_sleep(self, share: Share) -> bool:
        """As `Queue` has it."""
        # A job may have come between the look at its queue and the hold of it.
        return self._hold(share) and self._found(statements.LET_SLEEP, share)

    def take(self, batch: Batch, taking: Call) -> Rows:
        """Move the pool's time on to that of the batch's leader, run ``taking``, which has the batch's jobs begin, and
        take out of the queue those that did; return the rows of ``taking``.

        Some may have been canceled or paused at this very moment. Whoever did that took them out.
        """
        at = {**self._pool, "vtime": batch.vtime}
        calls = [
            taking,
            (statements.ADVANCE_POOL, at),
            (statements.DEQUEUE, {"ids": [job.job_id for job in batch.jobs]}),
        ]
        if batch.passed_over:
            calls.append((statements.KEEP_UP, {**at, "tenant_ids": list(batch.passed_over)}))
        return exchange(self._session, *calls)[0]

    def _hold(self, share: Share) -> bool:
        """Keep new jobs of a tenant from being written until commit; False while one is just being written."""
        return self._found(statements.HOLD_TENANT, share)

    def _found(self, statement: TextClause, share: Share) -> bool:
        return self._session.execute(statement, self._of(share)).one_or_none() is not None

    def _of(self, share: Share) -> dict[str, str | int]:
        return {**self._pool, "tenant_id": share.tenant_id, "head_key": share.head_key}
