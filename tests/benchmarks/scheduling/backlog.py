"""A queue on a real Postgres that is filled in bulk, and emptied by workers whose work takes only time.

Rows are those that submissions make, written by one statement for thousands. Jobs are claimed and finished by the
workers' own code.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from core.catalog.registration import register
from core.db.engine import async_engine, bind_tenant, sync_engine
from core.embedded.postgres import API, WORKER
from core.jobs import execution, submission
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.params import GenerationParams, cost_ms, lane
from core.jobs.states import JobState
from core.jobs.submission import QueueLimits
from tests.serving import LEASE, POOL

_LIMITS: Final = QueueLimits(pool=POOL, max_attempts=3, tenant_max_running=1000)

_TENANTS: Final = text("""
    WITH made AS (
        INSERT INTO tenants (id, name) SELECT t.id, t.id FROM unnest(CAST(:ids AS text[])) AS t(id) RETURNING id),
    joined AS (
        INSERT INTO tenant_pools (pool, tenant_id, weight, max_running)
        SELECT :pool, id, :weight, :max_running FROM made RETURNING tenant_id)
    INSERT INTO tenant_sched (pool, tenant_id, weight, max_running)
    SELECT :pool, tenant_id, :weight, :max_running FROM joined
""")

# Each tenant's k-th job comes after all tenants' earlier ones.
_JOBS: Final = text("""
    INSERT INTO jobs (id, tenant_id, kind, pool, lane, model_id, cost_ms, params, max_attempts, sort_key, created_at)
    SELECT 'job_' || t.id || '_' || :mark || '_' || lpad(k::text, 8, '0'), t.id, 'generation', :pool, :lane, :model_id,
        :cost_ms, CAST(:params AS jsonb), 3,
        (extract(epoch FROM lockstep_now() - CAST(:age AS interval)) * 1000)::bigint + k,
        lockstep_now() - CAST(:age AS interval) + k * interval '1 ms'
    FROM unnest(CAST(:ids AS text[])) AS t(id), generate_series(1, :count) k
    RETURNING id
""")

_ENQUEUE: Final = text("""
    INSERT INTO ready (pool, tenant_id, sort_key, job_id, lane, model_id, cost_ms)
    SELECT pool, tenant_id, sort_key, id, lane, model_id, cost_ms FROM jobs
    WHERE tenant_id = ANY (CAST(:ids AS text[])) AND id LIKE '%\\_' || :mark || '\\_%'
""")

_WAKE: Final = text("""
    INSERT INTO sched_notes (pool, tenant_id, wake, least_key)
    SELECT s.pool, s.tenant_id, true, 0 FROM tenant_sched s WHERE s.tenant_id = ANY (CAST(:ids AS text[]))
""")


class Backlog:
    """One pool's queue, filled in bulk."""

    def __init__(self, url: URL) -> None:
        self.owner = sync_engine(url)
        self.worker = sync_engine(url.set(username=WORKER))
        self.sessions = sessionmaker(self.worker, expire_on_commit=False)
        with self.sessions.begin() as session:
            register(session, pool=POOL, locations=["models/storybook"])
            self.model_id = str(session.scalar(text("SELECT id FROM models")))
        self._marks = 0
        self._loop = asyncio.Runner()
        self._api = async_engine(url.set(username=API))

    def tenants(self, prefix: str, count: int, *, weight: int = 100, max_running: int = 1000) -> list[str]:
        """Make so many tenants; return their ids."""
        ids = [f"ten_{prefix}{number:05d}" for number in range(count)]
        values = {"ids": ids, "pool": POOL, "weight": weight, "max_running": max_running}
        with self.owner.begin() as connection:
            connection.execute(_TENANTS, values)
        return ids

    def fill(self, tenants: Sequence[str], count: int, *, steps: int = 1, n: int = 1, age: str = "0") -> None:
        """Queue so many generations of each tenant, made so long ago; those of as many steps share batches."""
        self._marks += 1
        params = self._params(steps=steps, n=n)
        values = {
            "ids": list(tenants),
            "pool": POOL,
            "count": count,
            "age": age,
            "mark": str(self._marks),
            "lane": lane(params, ""),
            "model_id": self.model_id,
            "cost_ms": cost_ms(params),
            "params": json.dumps(params.model_dump(mode="json")),
        }
        with self.owner.begin() as connection:
            connection.execute(_JOBS, values)
            connection.execute(_ENQUEUE, values)
            connection.execute(_WAKE, values)

    def submit(self, tenant_id: str) -> float:
        """Queue one generation as the API does; return the time, in seconds since 1970, when it was committed."""

        async def accept() -> float:
            async with AsyncSession(self._api, expire_on_commit=False) as session, session.begin():
                bind_tenant(session, tenant_id)
                await submission.submit(session, tenant_id, self._params(), limits=_LIMITS)
            return time.time()

        return self._loop.run(accept())

    def vacuum(self) -> None:
        """Bring the tables to the state that autovacuum would bring them to in time."""
        with self.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

    def one(self, sql: str, **values: Any) -> dict[str, Any]:
        """Return a query's one row."""
        with self.owner.begin() as connection:
            return dict(connection.execute(text(sql), values).mappings().one())

    def _params(self, *, steps: int = 1, n: int = 1) -> GenerationParams:
        wanted = {"prompt": "a cat", "steps": steps, "n": n, "guidance": 1, "seed": 1, "width": 64, "height": 64}
        return GenerationParams.model_validate({"model_id": self.model_id, **wanted})

    def close(self) -> None:
        """Let go of the connections."""
        self._loop.run(self._api.dispose())
        self._loop.close()
        self.owner.dispose()
        self.worker.dispose()


def claim(session: Session, room: int, worker_id: str = "wrk_1") -> list[ClaimedJob]:
    """Claim a batch as a worker does that holds nothing warm."""
    return execution.claim(session, pool=POOL, worker_id=worker_id, warm=frozenset(), room=room, lease=LEASE)


def finish(session: Session, jobs: Sequence[ClaimedJob], gpu_seconds: Sequence[float]) -> None:
    """End jobs as a worker does, each with its own GPU time."""
    result: dict[str, Any] = {"images": []}
    endings = [
        Ending(job.id, job.token, JobState.SUCCEEDED, seconds, result=result)
        for job, seconds in zip(jobs, gpu_seconds, strict=True)
    ]
    execution.finish(session, endings)
