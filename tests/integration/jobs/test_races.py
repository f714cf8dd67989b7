"""Whatever two connections do to the queue at the same time, nothing is stranded, doubled or miscounted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from core.catalog.registration import register
from core.control import verbs
from core.db.engine import async_engine, bind_tenant
from core.embedded.postgres import API
from core.errors import LockstepError
from core.jobs import execution, submission
from core.jobs.execution import Ending, Return
from core.jobs.params import TrainingParams
from core.jobs.recovery import admit, promote, reap
from core.jobs.states import AttemptOutcome, JobState
from core.jobs.submission import QueueLimits
from core.scheduling import levers
from core.scheduling.fairshare import Priority
from core.tenants.provisioning import create_key
from tests.integration.jobs.conftest import LEASE, POOL, Queue
from tests.integration.jobs.interleaving import race, watch, watched_exchanges

Work = Callable[[], Any]

TENANTS = 3
CAP, KEY_CAP = 3, 1
LIMITS = QueueLimits(pool=POOL, max_attempts=3, tenant_max_running=CAP)
BROKEN = {
    "counters": """
        SELECT s.tenant_id FROM tenant_sched s WHERE s.running - coalesce((
            SELECT sum(released) FROM sched_notes n WHERE n.pool = s.pool AND n.tenant_id = s.tenant_id), 0)
        <> (SELECT count(*) FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.state = 'running')""",
    "queue rows": """
        SELECT j.id FROM jobs j WHERE (SELECT count(*) FROM ready r WHERE r.job_id = j.id)
        <> (state = 'queued' AND not_before IS NULL AND pause_requested_at IS NULL AND NOT blocked
            AND key_place IS DISTINCT FROM 'waiting')::int""",
    "money": "SELECT concat(subject, ' ', problem) FROM ledger_mismatches()",
    "attempts": """
        SELECT j.id FROM jobs j WHERE (SELECT count(*) FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL
            AND a.token = j.lease_token) <> (j.state = 'running')::int""",
    "ends": """
        SELECT job_id FROM events WHERE type ~ '(succeeded|failed|canceled|expired)$'
        GROUP BY job_id HAVING count(*) > 1""",
    "sleepers": """
        SELECT s.tenant_id FROM tenant_sched s WHERE NOT s.active
          AND EXISTS (SELECT 1 FROM ready r WHERE r.tenant_id = s.tenant_id)
          AND NOT EXISTS (SELECT 1 FROM sched_notes n WHERE n.tenant_id = s.tenant_id AND n.wake)""",
    "unseen": """
        SELECT r.job_id FROM ready r JOIN tenant_sched s ON s.tenant_id = r.tenant_id WHERE r.sort_key < s.head_key
          AND NOT EXISTS (SELECT 1 FROM sched_notes n WHERE n.tenant_id = s.tenant_id AND n.least_key <= r.sort_key)""",
    "behind": """
        SELECT s.tenant_id FROM tenant_sched s JOIN pools p ON p.name = s.pool
        WHERE s.active AND NOT s.paused AND s.running < s.max_running AND s.vtime < p.vtime
          AND NOT EXISTS (SELECT 1 FROM sched_notes n WHERE n.tenant_id = s.tenant_id)""",
    "caps": """
        SELECT tenant_id FROM jobs WHERE state = 'running' GROUP BY tenant_id HAVING count(*) > :cap""",
    "key caps": """
        SELECT api_key_id FROM jobs WHERE state = 'running' AND api_key_id IS NOT NULL
        GROUP BY api_key_id HAVING count(*) > :key_cap""",
}


def found_broken(queue: Queue) -> dict[str, list[str]]:
    """Whose state is broken, by what is."""
    values = {"cap": CAP, "key_cap": KEY_CAP}
    found = {
        name: queue.column(sql, **{key: value for key, value in values.items() if f":{key}" in sql})
        for name, sql in BROKEN.items()
    }
    return {name: ids for name, ids in found.items() if ids}


class Races(RuleBasedStateMachine):
    """Rules race two pieces of work, each of which an API, a worker, maintenance or an operator might be doing."""

    queue: Queue

    @initialize()
    def begin(self) -> None:
        with self.queue.owners.begin() as connection:
            connection.execute(
                text("TRUNCATE jobs, tenant_pools, tenant_sched, sched_notes, ready, api_keys, tenants CASCADE")
            )
        with self.queue.sessions.begin() as session:  # models may be tenants', and went with them
            session.execute(text("DELETE FROM pools"))
            register(session, pool=POOL, locations=["models/storybook"])
            self.queue.model_id = session.execute(text("SELECT id FROM models")).scalar_one()
        self.tenants = [self.queue.tenant(f"t{number}", max_running=CAP) for number in range(TENANTS)]
        with Session(self.queue.owners) as session, session.begin():
            create_key(session, self.tenants[0], "capped", frozenset({"train"}))
            self.key = session.scalar(text("UPDATE api_keys SET max_running = :cap RETURNING id"), {"cap": KEY_CAP})

    @rule(data=st.data(), schedule=st.lists(st.booleans(), max_size=30))
    def two_at_once(self, data: st.DataObject, schedule: list[bool]) -> None:
        race(self._work(data), self._work(data), schedule)

    @rule(data=st.data())
    def one_alone(self, data: st.DataObject) -> None:
        self._work(data)()

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "key"):
            assert found_broken(self.queue) == {}

    def teardown(self) -> None:
        """Let everything run to its end: nothing may be left."""
        if not hasattr(self, "key"):
            return
        for tenant_id in self.tenants:
            self._lever(levers.pause_tenant, POOL, tenant_id, paused=False)()
            self._lever(levers.configure_tenant, POOL, tenant_id, max_running=CAP)()
        for job_id in self.queue.column("SELECT id FROM jobs WHERE pause_requested_at IS NOT NULL"):
            self._verb(verbs.resume, job_id)()
        while self.queue.column("SELECT id FROM jobs WHERE state IN ('queued', 'running')"):
            self._reap()
            self._admit()
            self._promote(timedelta(hours=1))
            jobs = self.queue.claim(8)
            assert jobs or self.queue.column("SELECT id FROM jobs WHERE state = 'queued' AND not_before IS NOT NULL")
            self._end(jobs)

    def _work(self, data: st.DataObject) -> Work:
        tenant = data.draw(st.sampled_from(self.tenants))
        jobs = self.queue.column("SELECT id FROM jobs WHERE state IN ('queued', 'running') ORDER BY id")
        works: dict[str, Work] = {
            "submit": self._submit(tenant, data.draw(st.sampled_from(Priority)), by_key=data.draw(st.booleans())),
            "claim": lambda: self.queue.claim(4),
            "promote": lambda: self._promote(timedelta(hours=1)),
            "admit": self._admit,
            "reap": self._reap,
            "finish": self._finish_running,
            "fail": self._fail_running,
            "pause tenant": self._lever(levers.pause_tenant, POOL, tenant, paused=data.draw(st.booleans())),
            "weigh": self._lever(levers.configure_tenant, POOL, tenant, weight=data.draw(st.integers(1, 300))),
        }
        if jobs:
            job_id = data.draw(st.sampled_from(jobs))
            works |= {verb.__name__: self._verb(verb, job_id) for verb in (verbs.cancel, verbs.pause, verbs.resume)}
            works["move"] = self._lever(levers.move_job, job_id, data.draw(st.sampled_from(Priority)))
        # Submissions and claims are what most of it is about.
        names = [*works, "submit", "submit", "claim", "claim"]
        return works[data.draw(st.sampled_from(names))]

    def _submit(self, tenant_id: str, priority: Priority, *, by_key: bool) -> Work:
        api_key_id = self.key if by_key and tenant_id == self.tenants[0] else None
        limits = QueueLimits(
            LIMITS.pool, LIMITS.max_attempts, LIMITS.tenant_max_running, api_key_id=api_key_id, priority=priority
        )
        params = TrainingParams(
            concept_id="cpt_1", concept_name="tom", superclass="cat", model_id=self.queue.model_id,
            file_ids=("file_1",), key_lock="local", seed=1,
        )  # fmt: skip

        async def submit(session: AsyncSession) -> None:
            await submission.submit(session, tenant_id, params, limits=limits)

        return lambda: self._as_api(tenant_id, submit)

    def _verb(self, verb: Any, job_id: str) -> Work:
        tenant_id = self.queue.job(job_id).tenant_id

        async def act(session: AsyncSession) -> None:
            await verb(session, job_id)

        def work() -> None:
            with suppress(LockstepError):  # it has ended meanwhile
                self._as_api(tenant_id, act)

        return work

    def _as_api(self, tenant_id: str, work: Any) -> None:
        async def run() -> None:
            engine = async_engine(self.queue.owners.url.set(username=API))
            watch([engine.sync_engine])
            try:
                async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
                    bind_tenant(session, tenant_id)
                    await work(session)
            finally:
                await engine.dispose()

        asyncio.run(run())

    def _lever(self, lever: Any, *values: Any, **named: Any) -> Work:
        def work() -> None:
            with suppress(LockstepError), self.queue.sessions.begin() as session:
                lever(session, *values, **named)

        return work

    def _promote(self, ahead: timedelta) -> None:
        with self._later(ahead) as session, session.begin():
            promote(session)

    def _reap(self) -> None:
        with self._later(2 * LEASE) as session, session.begin():
            reap(session, jitter=lambda: 0.5)

    def _admit(self) -> None:
        with self.queue.sessions.begin() as session:
            admit(session)

    def _later(self, ahead: timedelta) -> Session:
        options = f"-c lockstep.clock_offset=PT{ahead.total_seconds():.0f}S"
        engine = create_engine(self.queue.workers.url, poolclass=NullPool, connect_args={"options": options})
        watch([engine])
        return Session(engine)

    def _running(self) -> list[Any]:
        with self.queue.sessions.begin() as session:
            sql = "SELECT id, lease_token AS token FROM jobs WHERE state = 'running' ORDER BY id LIMIT 2"
            return list(session.execute(text(sql)))

    def _finish_running(self) -> None:
        self._end(self._running())

    def _end(self, jobs: list[Any]) -> None:
        with self.queue.sessions.begin() as session:
            execution.finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 0.5, result={}) for job in jobs])

    def _fail_running(self) -> None:
        jobs = self._running()
        with self.queue.sessions.begin() as session:
            execution.requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 0.5) for job in jobs])


@pytest.fixture
def raced(queue: Queue) -> Iterator[type[Races]]:
    watch([queue.workers])
    Races.queue = queue
    with watched_exchanges():
        yield Races


def test_no_race_strands_doubles_or_miscounts_a_job(raced: type[Races]) -> None:
    wanted = settings(
        max_examples=10,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # shrinking would take minutes: what it draws hangs on what the database says
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(raced, settings=wanted)


@pytest.mark.parametrize("before", range(10))
def test_a_job_that_comes_at_any_moment_of_a_claim_is_claimed_by_the_next(queue: Queue, before: int) -> None:
    """Its tenant has the least virtual time and nothing queued, and may just be let sleep."""
    first, second = queue.tenant("first"), queue.tenant("second")
    queue.submit(first)
    queue.submit(second, n=16, steps=200)
    queue.claim()
    queue.claim()
    queue.submit(second)
    watch([queue.workers])
    with watched_exchanges():
        race(queue.claim, lambda: queue.submit(first), [False] * before + [True] * 60)
    assert found_broken(queue) == {}
    queue.claim()
    assert queue.column("SELECT id FROM jobs WHERE state = 'queued'") == []
