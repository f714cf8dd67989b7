"""A queue on a real database: jobs submitted as the API does, claimed as a worker does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from core.catalog.registration import register
from core.control import verbs
from core.control.families import settle
from core.db.engine import async_engine, bind_tenant, sync_engine
from core.embedded.postgres import API, WORKER
from core.jobs import execution, submission
from core.jobs.distilling import DistillationRequest, accept_distillation
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.models import Job
from core.jobs.params import GenerationParams, TrainingParams
from core.jobs.recovery import promote
from core.jobs.states import JobState
from core.jobs.submission import QueueLimits
from core.scheduling.fairshare import Priority
from core.tenants.provisioning import create_tenant

T = TypeVar("T")

POOL = "gpu"
LEASE = timedelta(seconds=45)
LIMITS = QueueLimits(pool=POOL, max_attempts=3, tenant_max_running=16)


class Queue:
    """One pool: what an API and a worker would do to it, each under its own role."""

    def __init__(self, url: URL, api: AsyncEngine) -> None:
        self.workers = sync_engine(url.set(username=WORKER))
        self.owners = sync_engine(url)
        self.sessions = sessionmaker(self.workers, expire_on_commit=False)
        self._api = api
        with self.sessions.begin() as session:
            register(session, pool=POOL, locations=["models/storybook"])
            self.model_id = session.execute(text("SELECT id FROM models")).scalar_one()

    def tenant(self, name: str = "acme", *, weight: int = 100, max_running: int = 16) -> str:
        with Session(self.owners) as session, session.begin():
            tenant_id = create_tenant(session, name).id
            session.execute(
                text("INSERT INTO tenant_pools (pool, tenant_id, weight, max_running) VALUES (:p, :t, :w, :m)"),
                {"p": POOL, "t": tenant_id, "w": weight, "m": max_running},
            )
        return tenant_id

    def submit(
        self,
        tenant_id: str,
        count: int = 1,
        *,
        priority: Priority = Priority.NORMAL,
        api_key_id: str | None = None,
        cancel_after: timedelta | None = None,
        **changes: Any,
    ) -> list[str]:
        values = {"prompt": "a cat", "steps": 50, "guidance": 3, "n": 1, "seed": 1, "width": 64, "height": 64}
        params = GenerationParams.model_validate({"model_id": self.model_id} | values | changes)

        limits = replace(LIMITS, priority=priority, api_key_id=api_key_id, cancel_after=cancel_after)

        async def submit_all(session: AsyncSession) -> list[str]:
            jobs = [await submission.submit(session, tenant_id, params, limits=limits) for _ in range(count)]
            return [job.id for job in jobs]

        return asyncio.run(self._as_api(tenant_id, submit_all))

    def train(self, tenant_id: str, *, name: str = "tom") -> str:
        """A training that waits."""
        concept = {"i": f"cpt_{name}", "t": tenant_id, "n": name, "m": self.model_id}
        with self.sessions.begin() as session:
            session.execute(
                text("INSERT INTO concepts (id, tenant_id, name, superclass, model_id) VALUES (:i, :t, :n, 'cat', :m)"),
                concept,
            )
        values = {"concept_id": concept["i"], "concept_name": name, "superclass": "cat", "model_id": self.model_id}
        params = TrainingParams.model_validate({**values, "file_ids": ["file_1"], "key_lock": "local", "seed": 1})

        async def submit(session: AsyncSession) -> str:
            return (await submission.submit(session, tenant_id, params, limits=LIMITS)).id

        return asyncio.run(self._as_api(tenant_id, submit))

    def distil(self, tenant_id: str, *, name: str = "swift", pairs: int = 130) -> tuple[str, list[str]]:
        """A distillation and the jobs that were made for it."""
        request = DistillationRequest(
            name=name, prompts=("a cat", "a dog"), pairs=pairs, pair_steps=2 if pairs else None, seed=1
        )

        async def accept(session: AsyncSession) -> str:
            return (await accept_distillation(session, tenant_id, request, limits=LIMITS, draw_seed=lambda: 1)).id

        job_id = asyncio.run(self._as_api(tenant_id, accept))
        return job_id, self.column("SELECT id FROM jobs WHERE parent_id = :id ORDER BY id", id=job_id)

    def cancel(self, tenant_id: str, job_id: str) -> Job:
        return asyncio.run(self._as_api(tenant_id, lambda session: verbs.cancel(session, job_id)))

    def pause(self, tenant_id: str, job_id: str) -> Job:
        return asyncio.run(self._as_api(tenant_id, lambda session: verbs.pause(session, job_id)))

    def resume(self, tenant_id: str, job_id: str) -> Job:
        return asyncio.run(self._as_api(tenant_id, lambda session: verbs.resume(session, job_id)))

    def maintain(self) -> None:
        """One pass of what lets jobs go on."""
        with self.sessions.begin() as session:
            settle(session)
        with self.sessions.begin() as session:
            promote(session)

    def finish(self, job: ClaimedJob, **result: Any) -> None:
        """The job succeeded."""
        with self.sessions.begin() as session:
            ending = Ending(job.id, job.token, JobState.SUCCEEDED, 1.0, result=result)
            assert execution.finish(session, [ending]) == {job.id}

    async def _as_api(self, tenant_id: str, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        try:
            async with AsyncSession(self._api, expire_on_commit=False) as session, session.begin():
                bind_tenant(session, tenant_id)
                return await work(session)
        finally:
            await self._api.dispose()  # its connections belong to this event loop

    def claim(self, room: int = 1, *, worker: str = "wrk_1", warm: frozenset[str] = frozenset()) -> list[ClaimedJob]:
        with self.sessions.begin() as session:
            return execution.claim(session, pool=POOL, worker_id=worker, warm=warm, room=room, lease=LEASE)

    def one(self, sql: str, **values: Any) -> Any:
        with self.owners.begin() as connection:
            return connection.execute(text(sql), values).one()

    def column(self, sql: str, **values: Any) -> list[Any]:
        with self.owners.begin() as connection:
            return list(connection.execute(text(sql), values).scalars())

    def job(self, job_id: str) -> Any:
        return self.one("SELECT * FROM jobs WHERE id = :id", id=job_id)

    def events(self, job_id: str) -> list[str]:
        return self.column("SELECT type FROM events WHERE job_id = :id ORDER BY sequence", id=job_id)

    def dispose(self) -> None:
        self.workers.dispose()
        self.owners.dispose()


@pytest.fixture
def queue(new_database: Any) -> Iterator[Queue]:
    """An empty queue in a database of its own."""
    url = new_database()
    api = async_engine(url.set(username=API))
    made = Queue(url, api)
    yield made
    made.dispose()


@pytest.fixture
def later(queue: Queue) -> Any:
    """A worker's session whose clock is ahead: nothing waits for a lease to expire."""

    def make(ahead: timedelta) -> Session:
        options = f"-c lockstep.clock_offset=PT{ahead.total_seconds():.0f}S"
        # Unpooled: the clock must not travel on with a connection.
        return Session(create_engine(queue.workers.url, poolclass=NullPool, connect_args={"options": options}))

    return make
