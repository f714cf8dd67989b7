"""Cuts the streams of jobs' events again and again, and compares what clients heard with what happened.

    python -m tests.chaos.streams --reconnects 10000 --seed 1 [--json FILE]

Every connection breaks at a byte drawn by lot, in its headers or amid an event; the API behind it is one of two, each
of which is replaced now and then. Clients do as the standard says: forget the event that was cut off, and go on after
the last whole one. Exits with 1 when one missed an event or heard one twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from core.config import Settings
from core.jobs.events import Happening, Verb, record
from core.jobs.execution import ClaimedJob
from core.jobs.retry import JobError
from core.jobs.states import JobState
from lockstep import sse
from tests.benchmarks.report import Report, print_table
from tests.chaos.proxy import Network
from tests.serving import Deployment, Tenant, serving
from tests.stack import run_servers

_CLIENTS = 24
_OPEN = 12  # jobs that go on at once
_ENDS = 0.1  # the share of a job's events that are its last
_CUT_WITHIN = 3000  # bytes; an event has about 500, the headers some more
_REPLACE_EVERY = 500  # breaks, after which one of the servers is replaced
_END_STATES = frozenset(state for state in JobState if state.is_terminal)
_BROKE = JobError("internal-error", "It broke.", retryable=False)


class Work:
    """Jobs that come, go on and end, as their worker tells of them."""

    def __init__(self, deployment: Deployment, tenant: Tenant, seed: int) -> None:
        self._deployment = deployment
        self._tenant = tenant
        self._lots = random.Random(seed)
        self._open: list[ClaimedJob] = []

    def begin(self) -> str | None:
        """Id of one more job, unless enough go on."""
        if len(self._open) >= _OPEN:
            return None
        job = self._deployment.claim(self._tenant.generate()["id"])
        self._open.append(job)
        return job.id

    def go_on(self) -> None:
        """One more event, of a job drawn by lot."""
        job = self._lots.choice(self._open)
        if self._lots.random() < _ENDS:
            self._end(job)
            return
        said = {"said": "ü" * self._lots.randrange(300)}
        with self._deployment.sessions.begin() as session:
            record(session, [Happening(job.id, Verb.PROGRESS, said)])

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        """End what goes on, so that whoever listens hears the end."""
        for job in list(self._open):
            self._end(job)

    def happened(self, job_id: str) -> list[str]:
        """Ids of a job's events, in order."""
        return self._deployment.column("SELECT id FROM events WHERE job_id = :id ORDER BY sequence", id=job_id)

    def _end(self, job: ClaimedJob) -> None:
        self._open.remove(job)
        if self._lots.random() < 0.5:
            self._deployment.succeed(job)
        else:
            self._deployment.end(job, JobState.FAILED, _BROKE)


@dataclass
class Listener:
    """Follows jobs over connections that break."""

    url: str
    headers: dict[str, str]
    breaks: Counter[str] = field(default_factory=Counter)

    def hear(self, job_id: str) -> list[str]:
        """Ids of the events that were heard, up to one that ends the job."""
        heard: list[str] = []
        last: dict[str, str] = {}
        while True:
            try:
                for sent in self._sent(job_id, last):
                    last = {"Last-Event-ID": sent.id or ""}
                    heard.append(json.loads(sent.data)["id"])
                    if sent.type.rpartition(".")[2] in _END_STATES:
                        return heard
                self.breaks["the answer was cut off"] += 1
            except httpx.TransportError as error:
                self.breaks[type(error).__name__] += 1

    def _sent(self, job_id: str, last: dict[str, str]) -> Iterator[sse.ServerSentEvent]:
        # A client of its own each time: kept connections would not be cut where the lot says.
        with httpx.stream(
            "GET", f"{self.url}/v1/jobs/{job_id}/events", headers=self.headers | last, timeout=60, verify=False
        ) as response:
            response.raise_for_status()
            yield from sse.parse(response.iter_text())


@dataclass
class Outcome:
    """What was heard of each job, beside what had happened."""

    breaks: Counter[str]
    replaced: int
    jobs: int = 0
    events: int = 0
    missed: int = 0
    doubled: int = 0
    misplaced: int = 0

    def add(self, heard: list[str], happened: list[str]) -> None:
        """Count one job."""
        self.jobs += 1
        self.events += len(happened)
        self.missed += len(set(happened) - set(heard))
        self.doubled += len(heard) - len(set(heard))
        self.misplaced += list(dict.fromkeys(heard)) != happened


class Replicas:
    """Two servers of the API, each of which can be replaced."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[ExitStack] = []
        self.ports: list[int] = []
        self.replaced = 0

    def __enter__(self) -> Replicas:
        self._start()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for stack in self._running:
            stack.close()

    def replace(self) -> None:
        """Start one and stop the oldest, whose streams break."""
        self._start()
        self.ports.pop(0)
        self._running.pop(0).close()
        self.replaced += 1

    def _start(self) -> None:
        stack = ExitStack()
        url = stack.enter_context(serving(self._settings))
        self._running.append(stack)
        self.ports.append(int(url.rpartition(":")[2]))


def cut(settings: Settings, *, reconnects: int, seed: int) -> Outcome:
    """Follow jobs until that many connections have broken, and each job to its end."""
    settings = settings.model_copy(update={"requests_per_minute": 0, "jobs_per_minute": 0})
    lots = random.Random(seed)
    with ExitStack() as stack:
        url = stack.enter_context(serving(settings))  # for all but the streams; the first in, the last out
        replicas = stack.enter_context(Replicas(settings))
        network = Network()
        stack.callback(network.close)
        proxy = network.place(
            lambda: asyncio.open_connection("127.0.0.1", lots.choice(replicas.ports)),
            draw_cut=lambda: lots.randrange(_CUT_WITHIN),
        )
        deployment = Deployment(settings)
        stack.callback(deployment.close)
        tenant = Tenant(deployment, url, "acme")
        stack.enter_context(tenant.http)
        headers = {"Authorization": tenant.http.headers["Authorization"]}
        listener = Listener(f"http://127.0.0.1:{proxy.port}", headers)
        return _cut(replicas, listener, Work(deployment, tenant, seed), reconnects)


def _cut(replicas: Replicas, listener: Listener, work: Work, reconnects: int) -> Outcome:
    hearing: dict[str, Future[list[str]]] = {}
    with ThreadPoolExecutor(_CLIENTS) as clients, work:
        while (broken := listener.breaks.total()) < reconnects:
            if broken >= _REPLACE_EVERY * (replicas.replaced + 1):
                replicas.replace()
            if (job_id := work.begin()) is not None:
                hearing[job_id] = clients.submit(listener.hear, job_id)
            work.go_on()
            late = [heard for heard in hearing.values() if not heard.done()]
            if len(late) > 2 * _CLIENTS:
                late[0].exception(timeout=60)
    outcome = Outcome(listener.breaks, replicas.replaced)
    for job_id, heard in hearing.items():
        outcome.add(heard.result(), work.happened(job_id))
    return outcome


def main() -> None:
    """Cut, compare and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.streams", description=__doc__)
    parser.add_argument("--reconnects", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and targets here")
    given = parser.parse_args()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of every stream that a stopped server cuts off
    with run_servers() as servers:
        outcome = cut(servers.new_settings(), reconnects=given.reconnects, seed=given.seed)
    print_table("Connections that broke", ("how", "times"), [(how, n) for how, n in outcome.breaks.most_common()])
    report = Report()
    for name in ("jobs", "events", "replaced", "missed", "doubled", "misplaced"):
        report.add(name, getattr(outcome, name))
    report.add("reconnects", outcome.breaks.total())
    report.expect("reconnects", ">=", given.reconnects)
    for name in ("missed", "doubled", "misplaced"):
        report.expect(name, "<=", 0)
    report.finish(given.json)
    sys.exit(bool(outcome.missed or outcome.doubled or outcome.misplaced))


if __name__ == "__main__":
    main()
