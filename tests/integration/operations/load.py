"""A deployment at work: customers, workers that succeed, fail and die, and operators, each in a thread of its own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import httpx
from sqlalchemy.exc import SQLAlchemyError

from core.jobs import execution, workers
from core.jobs.execution import ClaimedJob, Ending, Return
from core.jobs.retry import JobError
from core.jobs.states import AttemptOutcome, JobStage, JobState
from core.jobs.workers import Vitals
from tests.serving import POOL, Deployment, Tenant

_LEASE = timedelta(seconds=1)
_ERRORS = ("bad-picture", "engine-lost", "out-of-memory")


class Load:
    """Everybody who is at work, until stopped. ``say`` is where the API is: it moves when it is started again."""

    def __init__(self, deployment: Deployment, say: Callable[[], str], seed: int) -> None:
        self._deployment = deployment
        self._say = say
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.broken: list[BaseException] = []

    def customer(self, tenant: Tenant) -> None:
        """Submits generations, cancels and pauses some."""
        chance = random.Random(self._random.random())
        submitted: list[str] = []

        def act(client: httpx.Client) -> None:
            if submitted and chance.random() < 0.2:
                client.post(f"/v1/jobs/{chance.choice(submitted)}/cancel")
                return
            priority = chance.choice(["low", "normal", "normal", "high"])
            body = {"prompt": "a cat", "n": chance.randint(1, 3), "steps": chance.choice([1, 2]), "priority": priority}
            response = client.post("/v1/generations", json=body)
            if response.status_code == 201:
                submitted.append(response.json()["id"])

        self._start(lambda: self._over_http(tenant, act, pause=0.03))

    def operator(self, tenant: Tenant, turned: list[Tenant]) -> None:
        """Turns weights, caps and pauses."""
        chance = random.Random(self._random.random())

        def act(client: httpx.Client) -> None:
            path = f"/v1/admin/pools/{POOL}/tenants/{chance.choice(turned).id}"
            change = chance.choice(
                [{"paused": True}, {"paused": False}, {"weight": 300}, {"max_running": 1}, {"max_running": 8}]
            )
            client.patch(path, json=change)

        self._start(lambda: self._over_http(tenant, act, pause=0.3))

    def worker(self) -> None:
        """Claims batches and does what workers do with them; one that dies comes back as another."""
        chance = random.Random(self._random.random())

        def work() -> None:
            while not self._stopped.is_set():
                with suppress(SQLAlchemyError):
                    _Worker(self._deployment, chance).live(self._stopped)

        self._start(work)

    def _over_http(self, tenant: Tenant, act: Callable[[httpx.Client], None], *, pause: float) -> None:
        while not self._stopped.is_set():
            # The API, or Postgres, may be starting again.
            with suppress(httpx.TransportError, SQLAlchemyError), tenant.client() as client:
                client.base_url = httpx.URL(self._say())
                while not self._stopped.is_set():
                    act(client)
                    time.sleep(pause)

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.broken.append(error)
                raise

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Have everybody leave, and see that nobody left before."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert self.broken == []


class _Worker:
    """One worker process of a sort: it registers, and dies now and then with jobs in hand."""

    def __init__(self, deployment: Deployment, chance: random.Random) -> None:
        self._sessions = deployment.sessions
        self._chance = chance
        with self._sessions.begin() as session:
            self._id = workers.register(session, pool=POOL, host=f"host-{chance.randint(1, 3)}", pid=1)

    def live(self, stopped: threading.Event) -> None:
        while not stopped.is_set() and self._chance.random() > 0.04:
            self._beat("busy")
            with self._sessions.begin() as session:
                jobs = execution.claim(
                    session,
                    pool=POOL,
                    worker_id=self._id,
                    warm=frozenset(),
                    room=self._chance.randint(1, 4),
                    lease=_LEASE,
                )
            time.sleep(0.05)
            for job in jobs:
                self._do(job)
            self._beat("idle")
            if self._chance.random() < 0.02 and jobs:
                return
        self._beat("stopped" if self._chance.random() < 0.5 else "idle")

    def _beat(self, state: str) -> None:
        with self._sessions.begin() as session:
            workers.beat(session, self._id, state=state, device="gpu", warm_models=[], vitals=self._vitals())

    def _vitals(self) -> Vitals | None:
        chance = self._chance
        if chance.random() < 0.1:
            return None
        memory = {"memory_used_bytes": chance.randrange(2**33), "memory_total_bytes": 2**33}
        if chance.random() < 0.3:
            return Vitals("cpu", utilization=chance.random(), **memory)
        power = chance.choice([None, chance.uniform(50, 700)])
        return Vitals(
            "gpu", utilization=chance.random(), temperature_c=float(chance.randint(30, 90)), power_w=power, **memory
        )

    def _do(self, job: ClaimedJob) -> None:
        what, seconds = self._chance.random(), self._chance.randint(1, 4000) / 1000
        error = JobError(self._chance.choice(_ERRORS), "It did not work.", retryable=what < 0.15)
        with self._sessions.begin() as session:
            if what < 0.08:
                return  # left to the reaper
            if what < 0.15:
                back = Return(
                    job.id, job.token, AttemptOutcome.FAILED, seconds, delay=timedelta(seconds=1), error=error
                )
                execution.requeue(session, [back])
            elif what < 0.2:
                execution.requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, seconds)])
            elif what < 0.3:
                execution.finish(session, [Ending(job.id, job.token, JobState.FAILED, seconds, error=error)])
            else:
                execution.report(session, job, stage=JobStage.WORKING, progress={"step": 1, "steps": 2})
                execution.finish(
                    session,
                    [Ending(job.id, job.token, JobState.SUCCEEDED, seconds, result={"images": [], "withheld": []})],
                )
