"""Measures how soon running jobs stop, rest and make way, and how soon their worker does something else.

The whole system runs as `lockstepd up` starts it, with the bundled models and one worker. Times are from just before a
customer's request to what the database's clock wrote on the same machine. The baseline is the wait that each would have
been without: what was left of the job.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from PIL import Image
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from core.db.engine import sync_engine
from core.tenants.provisioning import create_key, create_tenant
from lockstep import Lockstep
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.running import running
from tests.waiting import until

_MODELS: Final = Path(__file__).parents[2] / "models"
_STUDENT: Final = "storybook-student"
_LONG, _STEPS = 120, 2000  # steps of a generation and of a training that nobody waits for
_BURST: Final = 8
_PREEMPT_AFTER: Final = 3.0
_PATIENCE: Final = 120.0

_TIMES: Final = text("""
    SELECT state, extract(epoch FROM started_at)::float8 AS started,
        extract(epoch FROM finished_at)::float8 AS finished,
        (progress ->> 'step')::int AS step, (progress ->> 'steps')::int AS steps,
        (SELECT extract(epoch FROM max(ended_at))::float8 FROM job_attempts a WHERE a.job_id = j.id) AS left
    FROM jobs j WHERE id = :id
""")


@dataclass(frozen=True)
class Running:
    """A job in the middle of its work: how long one of its steps takes, and how long it would still need."""

    id: str
    step_seconds: float
    seconds_left: float


class Stand:
    """A customer of a system with one worker, and a look at its tables."""

    def __init__(self, client: Lockstep, engine: Engine) -> None:
        self.client = client
        self._engine = engine
        self._concepts = 0
        self._picture = client.files.upload(_picture()).id

    def generate(self) -> str:
        """Begin four pictures that take a while."""
        return self.client.generations.create(prompt="a cat", model="storybook", n=4, steps=_LONG).id

    def train(self) -> str:
        """Begin a training that takes a while."""
        self._concepts += 1
        name = f"tom{self._concepts}"
        return self.client.trainings.create(
            concept=name, superclass="cat", images=[self._picture], base_model="storybook", steps=_STEPS
        ).id

    def draw(self) -> str:
        """Ask for a picture in one step."""
        return self.client.generations.create(prompt="a dog", model=_STUDENT).id

    def times(self, job_id: str) -> Any:
        """A job's state, step and times, in seconds since 1970."""
        with self._engine.connect() as connection:
            return connection.execute(_TIMES, {"id": job_id}).one()

    def until_running(self, job_id: str) -> Running:
        """Wait until a job has done three steps more than when it was first seen at one."""
        self._until(lambda: (self.times(job_id).step or 0) > 0)
        first, began = self.times(job_id).step, time.monotonic()
        self._until(lambda: self.times(job_id).step >= first + 3)
        row = self.times(job_id)
        step_seconds = (time.monotonic() - began) / (row.step - first)
        return Running(job_id, step_seconds, step_seconds * (row.steps - row.step))

    def until_ended(self, job_id: str) -> Any:
        """Wait until a job has ended; its times."""
        self._until(lambda: self.times(job_id).finished is not None)
        return self.times(job_id)

    def until_resting(self, job_id: str) -> Any:
        """Wait until a job has left its worker, and waits; its times."""
        self._until(lambda: self.times(job_id).state == "queued")
        return self.times(job_id)

    def until_beyond(self, job_id: str, step: int) -> None:
        """Wait until a job has gone on after a step."""
        self._until(lambda: self.times(job_id).state == "running" and (self.times(job_id).step or 0) > step)

    @staticmethod
    def _until(check: Callable[[], bool]) -> None:
        until(check, seconds=_PATIENCE)


Figures = dict[str, list[float]]
"""Seconds of each round, by figure; those beside them under the same names with a star."""


def cancel_queued(stand: Stand, seen: Figures) -> None:
    """Cancel what waits behind another job."""
    running = stand.until_running(stand.generate())
    waiting = stand.draw()
    asked = time.time()
    state = stand.client.generations.cancel(waiting).state
    _note(seen, "a queued job is canceled", time.time() - asked, running.seconds_left)
    if state != "canceled":
        raise RuntimeError(f"the answer says {state}")
    stand.client.generations.cancel(running.id)
    stand.until_ended(running.id)


def cancel_generation(stand: Stand, seen: Figures) -> None:
    """Cancel pictures while they are drawn."""
    running, waiting = stand.until_running(stand.generate()), stand.draw()
    asked = time.time()
    stand.client.generations.cancel(running.id)
    _note(
        seen, "a running generation is canceled", stand.until_ended(running.id).finished - asked, running.seconds_left
    )
    _note(seen, "its worker starts another job", stand.until_ended(waiting).started - asked, running.seconds_left)


def cancel_training(stand: Stand, seen: Figures) -> None:
    """Cancel a training while it learns."""
    running, waiting = stand.until_running(stand.train()), stand.draw()
    asked = time.time()
    stand.client.trainings.cancel(running.id)
    took = stand.until_ended(running.id).finished - asked
    _note(
        seen, "a running training is canceled, after a step's time", took - running.step_seconds, running.seconds_left
    )
    _note(
        seen, "a training's worker starts another job", stand.until_ended(waiting).started - asked, running.seconds_left
    )


def pause_training(stand: Stand, seen: Figures) -> None:
    """Pause a training, see another job served, and let it go on."""
    running, waiting = stand.until_running(stand.train()), stand.draw()
    asked = time.time()
    stand.client.trainings.pause(running.id)
    row = stand.until_resting(running.id)
    took = row.left - asked
    _note(seen, "a running training rests, after a step's time", took - running.step_seconds, running.seconds_left)
    stand.until_ended(waiting)
    asked = time.time()
    stand.client.trainings.resume(running.id)
    stand.until_beyond(running.id, row.step)
    _note(seen, "a resumed training has done a step more", time.time() - asked, None)
    stand.client.trainings.cancel(running.id)
    stand.until_ended(running.id)


def preempt(stand: Stand, seen: Figures) -> None:
    """Let a burst of pictures come while a training runs."""
    running = stand.until_running(stand.train())
    began = stand.times(running.id).started
    until(lambda: time.time() - began > _PREEMPT_AFTER, seconds=_PATIENCE)
    asked, step = time.time(), stand.times(running.id).step
    burst = [stand.draw() for _ in range(_BURST)]
    ends = [stand.until_ended(job_id) for job_id in burst]
    left = running.seconds_left
    _note(seen, "a burst's first picture is begun", min(row.started for row in ends) - asked, left)
    _note(seen, "a burst's last picture is done", max(row.finished for row in ends) - asked, left)
    stand.until_beyond(running.id, step)
    _note(seen, "a training that made way has done a step more", time.time() - asked, None)
    stand.client.trainings.cancel(running.id)
    stand.until_ended(running.id)


SCENES: Final = (cancel_queued, cancel_generation, cancel_training, pause_training, preempt)
LIMITS: Final = {
    "a queued job is canceled": 0.5,
    "a running generation is canceled": 2.0,
    "its worker starts another job": 10.0,
    "a running training is canceled, after a step's time": 2.0,
    "a training's worker starts another job": 10.0,
    "a running training rests, after a step's time": 2.0,
    "a burst's first picture is begun": 10.0,
}
"""What was aimed at, in seconds, for the slowest of all rounds."""


def _note(seen: Figures, figure: str, seconds: float, without: float | None) -> None:
    seen[figure].append(seconds)
    if without is not None:
        seen[f"{figure}*"].append(without)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((128, 128)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def open_stand() -> Iterator[Stand]:
    """A system of its own."""
    models = (_MODELS / "storybook", _MODELS / _STUDENT)
    with running(*models, preempt_after_seconds=_PREEMPT_AFTER, preempt_most=1000) as settings:
        engine = sync_engine(settings.owner_dsn)
        try:
            with Session(engine) as session, session.begin():
                tenant_id = create_tenant(session, "benchmark").id
                key = create_key(session, tenant_id, "benchmark", frozenset({"generate", "train", "read"}))
            with Lockstep(base_url=settings.base_url, api_key=key) as client:
                yield Stand(client, engine)
        finally:
            engine.dispose()


def measure(
    report: Report, stand: Stand, rounds: int, scenes: Sequence[Callable[[Stand, Figures], None]] = SCENES
) -> None:
    """Play every scene so many times, the first once more for nothing: both models are loaded then."""
    cancel_training(stand, defaultdict(list))
    seen: Figures = defaultdict(list)
    for _ in range(rounds):
        for scene in scenes:
            scene(stand, seen)
    rows: list[Sequence[str | float]] = []
    for figure in [name for name in seen if not name.endswith("*")]:
        values, beside = seen[figure], seen.get(f"{figure}*")
        report.add(f"seconds until {figure}, median", median(values), baseline=median(beside) if beside else None)
        report.add(f"seconds until {figure}, longest", max(values))
        rows.append((figure, median(values), max(values), median(beside) if beside else "-"))
    print_table(f"Seconds, {rounds} rounds", ("until", "median", "longest", "without"), rows)
    for figure in (name for name in LIMITS if name in seen):
        report.expect(f"seconds until {figure}, longest", "<=", LIMITS[figure])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    given = argument_parser("stopping", __doc__).parse_args(arguments)
    report = Report()
    with open_stand() as stand:
        measure(report, stand, 1 if given.quick else 5)
    report.finish(given.json)


if __name__ == "__main__":
    main()
