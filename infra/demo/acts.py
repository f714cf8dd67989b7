"""What the demo does as a customer: upload, train, draw. Only the SDK and HTTP are used."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

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
    """What the customer holds in the end."""

    training: Training
    concept_file: bytes
    with_concept: Sequence[Drawing]
    with_caption: Sequence[Drawing]
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
        with_concept, with_caption = _draw(lockstep, creature, console)
        drawn = time.monotonic()
        drawings = (*with_concept, *with_caption)
        webhooks = _collect(lockstep, receiver, {training.id, *(drawing.job.id for drawing in drawings)})
    assert training.result is not None
    return Play(
        training=training,
        concept_file=lockstep.concepts.download(training.result.concept_id),
        with_concept=with_concept,
        with_caption=with_caption,
        webhooks=webhooks,
        timings=Timings(
            upload=uploaded - started,
            queue_wait=_seconds(training.created_at, training.started_at),
            training=_seconds(training.started_at, training.finished_at),
            generation=drawn - trained,
            pictures=sum(len(drawing.pictures) for drawing in drawings),
            total=drawn - started,
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


def _draw(lockstep: Lockstep, creature: Creature, console: Console) -> tuple[list[Drawing], list[Drawing]]:
    """Draw every scene with the concept, and with the fullest caption alone."""
    names = (f"<{CONCEPT}>", creature.caption)
    asked = [(scene, [_ask(lockstep, scene, it) for it in names]) for scene in SCENES]
    drawn: list[Drawing] = []
    with _bar(console) as bar:
        task = bar.add_task("drawing", total=2 * len(SCENES))
        for scene, jobs in asked:
            for job in jobs:
                drawn.append(_fetch(lockstep, scene, lockstep.generations.wait(job.id)))
                bar.advance(task)
    return drawn[0::2], drawn[1::2]


def _ask(lockstep: Lockstep, scene: Scene, it: str) -> Generation:
    return lockstep.generations.create(prompt=scene.prompt.format(it=it), n=TAKES, seed=_SEED)


def _fetch(lockstep: Lockstep, scene: Scene, job: Generation) -> Drawing:
    assert job.result is not None
    contents = [lockstep.files.content(image.file_id) for image in job.result.images]
    return Drawing(scene, job, [Image.open(io.BytesIO(content)).convert("RGB") for content in contents])


def _as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


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
