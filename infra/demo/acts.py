"""What the demo does as a customer: upload, train, draw. Only the SDK and HTTP are used."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from infra.demo.receiver import Receiver
from infra.demo.story import CONCEPT, SCENES, TAKES, Creature, Scene
from infra.demo.table import Timings, Webhooks
from lockstep import Event, Generation, Lockstep, Training

_GRACE_SECONDS = 30.0  # for webhooks that are still on their way when everything is drawn
# Everything but progress, which is there to be watched: an integration acts on the rest.
_VERBS = ("queued", "started", "succeeded", "failed", "canceled", "expired")
_SUBSCRIBED = ("training.checkpoint", *(f"{kind}.{verb}" for kind in ("training", "generation") for verb in _VERBS))
_SEED = 1000  # of the first picture of every scene, so that both prompts of a scene start from the same noise


@dataclass(frozen=True)
class Drawing:
    """One scene drawn from one prompt."""

    scene: Scene
    job: Generation
    pictures: Sequence[Image.Image]


@dataclass(frozen=True)
class Play:
    """What the customer holds in the end; ``by_student`` is empty where the concept's model has no student."""

    training: Training
    concept_file: bytes
    with_concept: Sequence[Drawing]
    with_caption: Sequence[Drawing]
    by_student: Sequence[Drawing]
    webhooks: Webhooks
    timings: Timings


def play(lockstep: Lockstep, creature: Creature, inputs: Sequence[Image.Image], console: Console) -> Play:
    """Upload the inputs, learn the creature and draw every scene, with webhooks on; raises LockstepError."""
    with Receiver() as receiver, _subscribed(lockstep, receiver):
        started = time.monotonic()
        file_ids = _upload(lockstep, inputs)
        uploaded = time.monotonic()
        training = _train(lockstep, creature, file_ids, console)
        trained = time.monotonic()
        with_concept, with_caption = _draw(lockstep, [(f"<{CONCEPT}>", None), (creature.caption, None)], console)
        drawn = time.monotonic()
        student = _student(lockstep)
        by_student = _draw(lockstep, [(f"<{CONCEPT}>", student)], console)[0] if student else []
        ended = time.monotonic()
        drawings = (*with_concept, *with_caption, *by_student)
        webhooks = _collect(lockstep, receiver, {training.id, *(drawing.job.id for drawing in drawings)})
    assert training.result is not None
    return Play(
        training=training,
        concept_file=lockstep.concepts.download(training.result.concept_id),
        with_concept=with_concept,
        with_caption=with_caption,
        by_student=by_student,
        webhooks=webhooks,
        timings=Timings(
            upload=uploaded - started,
            queue_wait=_seconds(training.created_at, training.started_at),
            training=_seconds(training.started_at, training.finished_at),
            generation=drawn - trained,
            pictures=sum(len(drawing.pictures) for drawing in (*with_concept, *with_caption)),
            teacher_picture=_gpu_seconds(with_concept),
            student_picture=_gpu_seconds(by_student) if by_student else None,
            total=ended - started,
        ),
    )


@contextmanager
def _subscribed(lockstep: Lockstep, receiver: Receiver) -> Iterator[None]:
    """Have events sent to the receiver for as long as it listens."""
    endpoint = lockstep.webhook_endpoints.create(url=receiver.url, name="demo", event_types=_SUBSCRIBED)
    try:
        receiver.expect(endpoint.signing_secret or "")
        yield
    finally:
        lockstep.webhook_endpoints.delete(endpoint.id)


def _collect(lockstep: Lockstep, receiver: Receiver, job_ids: set[str]) -> Webhooks:
    """Compare what the receiver got with what the server recorded."""
    sent = {event.id for job in job_ids for event in lockstep.jobs.events(job) if event.type in _SUBSCRIBED}
    missing = receiver.wait_for(sent, seconds=_GRACE_SECONDS)
    return Webhooks(
        sent=len(sent),
        verified=receiver.verified,
        duplicates=receiver.duplicates,
        rejected=tuple(receiver.rejected),
        missing=frozenset(missing),
    )


def _upload(lockstep: Lockstep, pictures: Sequence[Image.Image]) -> list[str]:
    return [
        lockstep.files.upload(_as_png(picture), name=f"{CONCEPT}-{number}.png").id
        for number, picture in enumerate(pictures, start=1)
    ]


def _train(lockstep: Lockstep, creature: Creature, file_ids: Sequence[str], console: Console) -> Training:
    job = lockstep.trainings.create(concept=CONCEPT, superclass=creature.identity.cls, images=file_ids)
    with _bar(console) as bar:
        task = bar.add_task("training: waiting for a worker", total=None)
        return lockstep.trainings.wait(job.id, on_event=lambda event: _show(bar, task, event))


def _student(lockstep: Lockstep) -> str | None:
    """Find the model that draws in one step what its teacher, which the concept was learned on, draws in many."""
    models, learned_on = list(lockstep.models.list()), lockstep.concepts.get(CONCEPT).base_model
    teachers = {model.id for model in models if model.name == learned_on}
    return next((model.name for model in models if model.ready and model.teacher_id in teachers), None)


def _draw(lockstep: Lockstep, ways: Sequence[tuple[str, str | None]], console: Console) -> list[list[Drawing]]:
    """Draw every scene in every way: by what the creature is called, and by which model."""
    asked = [(scene, [_ask(lockstep, scene, it, model) for it, model in ways]) for scene in SCENES]
    drawn: list[list[Drawing]] = [[] for _ in ways]
    with _bar(console) as bar:
        task = bar.add_task("drawing", total=len(ways) * len(SCENES))
        for scene, jobs in asked:
            for drawings, job in zip(drawn, jobs, strict=True):
                drawings.append(_fetch(lockstep, scene, lockstep.generations.wait(job.id)))
                bar.advance(task)
    return drawn


def _ask(lockstep: Lockstep, scene: Scene, it: str, model: str | None) -> Generation:
    return lockstep.generations.create(prompt=scene.prompt.format(it=it), n=TAKES, seed=_SEED, model=model)


def _fetch(lockstep: Lockstep, scene: Scene, job: Generation) -> Drawing:
    assert job.result is not None
    contents = [lockstep.files.content(image.file_id) for image in job.result.images]
    return Drawing(scene, job, [Image.open(io.BytesIO(content)).convert("RGB") for content in contents])


def _as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _gpu_seconds(drawings: Sequence[Drawing]) -> float:
    """Return those of one picture: the median over jobs, as the first one of a model also loads it."""
    return median(drawing.job.gpu_seconds / len(drawing.pictures) for drawing in drawings)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    assert start is not None
    assert end is not None
    return (end - start).total_seconds()


def _bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


def _show(bar: Progress, task: TaskID, event: Event) -> None:
    """Move the bar to where an event says the training is."""
    progress = event.data.get("progress")
    if event.data.get("state") == "running" and progress is None:
        bar.update(task, description="training: loading the model")
    elif progress is not None:
        bar.update(task, description="training", completed=progress["step"], total=progress["steps"])
