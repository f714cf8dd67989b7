"""Workers whose work takes only time, on a clock that jumps from one event to the next: the database's own, moved."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from core.jobs.execution import ClaimedJob
from tests.benchmarks.scheduling.backlog import Backlog, claim, finish

_SET_CLOCK = text("SELECT set_config('lockstep.clock_offset', :offset, true)")


@dataclass(frozen=True)
class Started:
    """A batch, when it began, and the GPU-seconds of each of its jobs."""

    at: float
    jobs: list[ClaimedJob]
    seconds: list[float]

    @property
    def ends_at(self) -> float:
        """When the last of its jobs is done."""
        return self.at + sum(self.seconds)


@dataclass
class Fleet:
    """So many workers, each with room for a batch; ``seconds_of`` says what a job takes in truth."""

    queue: Backlog
    workers: int
    room: int
    seconds_of: Callable[[ClaimedJob], float]
    now: float = 0.0
    running: Counter[str] = field(default_factory=Counter)  # by tenant
    most_running: Counter[str] = field(default_factory=Counter)
    served: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # GPU-seconds by tenant
    batches: list[int] = field(default_factory=list)  # their sizes
    _busy: list[tuple[float, int, Started]] = field(default_factory=list)
    _idle: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idle = list(range(self.workers))

    def run(self, until: float) -> Iterator[Started]:
        """Claim whenever a worker is free, up to a time; yield every batch as it starts."""
        while True:
            while self._idle and (started := self._start()) is not None:
                yield started
            if not self._busy or self._busy[0][0] > until:
                self.now = max(self.now, until)
                return
            self._end()

    def drain(self) -> None:
        """Wait for what runs."""
        while self._busy:
            self._end()

    def _start(self) -> Started | None:
        with self._session() as session, session.begin():
            self._set_clock(session)
            jobs = claim(session, self.room)
        if not jobs:
            return None
        started = Started(self.now, jobs, [self.seconds_of(job) for job in jobs])
        heapq.heappush(self._busy, (started.ends_at, self._idle.pop(), started))
        self.batches.append(len(jobs))
        self.running.update(job.tenant_id for job in jobs)
        for tenant_id in {job.tenant_id for job in jobs}:
            self.most_running[tenant_id] = max(self.most_running[tenant_id], self.running[tenant_id])
        return started

    def _end(self) -> None:
        self.now, worker, ended = heapq.heappop(self._busy)
        self._idle.append(worker)
        with self._session() as session, session.begin():
            self._set_clock(session)
            finish(session, ended.jobs, ended.seconds)
        self.running.subtract(job.tenant_id for job in ended.jobs)
        for job, seconds in zip(ended.jobs, ended.seconds, strict=True):
            self.served[job.tenant_id] += seconds

    def _session(self) -> Session:
        return self.queue.sessions()

    def _set_clock(self, session: Session) -> None:
        session.execute(_SET_CLOCK, {"offset": f"{self.now:.6f} seconds"})
