"""What a client can do, one class for each resource of the API; generations have a module of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from lockstep.errors import JobUnsuccessful
from lockstep.following import follow
from lockstep.models import (
    Concept,
    Distillation,
    Event,
    File,
    Job,
    Model,
    Page,
    Resource,
    SignedUrl,
    Training,
    Why,
)
from lockstep.transport import Params, Transport

R = TypeVar("R", bound=Resource)
J = TypeVar("J", bound=Job)


class Resources:
    """Base of what a client can do with one resource."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _page(self, path: str, of: type[R], params: Params) -> Page[R]:
        answer = self._transport.get(path, params).json()
        return Page(
            data=tuple(of.model_validate(item) for item in answer["data"]),
            has_more=answer["has_more"],
            last_id=answer["last_id"],
            following=lambda last_id: self._page(path, of, {**params, "after": last_id}),
        )


def named_content(content: str | PathLike[str] | bytes, name: str | None, *, otherwise: str) -> tuple[str, bytes]:
    """The bytes that are meant, and their name: the one given, that of their path, or another."""
    if isinstance(content, bytes):
        return name or otherwise, content
    path = Path(content)
    return name or path.name, path.read_bytes()


class Files(Resources):
    """Pictures and concept files that were uploaded, and what jobs produced."""

    def upload(
        self,
        content: str | PathLike[str] | bytes,
        *,
        name: str | None = None,
        purpose: str = "picture",
        idempotency_key: str | None = None,
    ) -> File:
        """Store a picture, from a path or from its bytes; of the purpose ``concept_upload``, a concept file."""
        file = named_content(content, name, otherwise=purpose)
        answer = self._transport.post("/v1/files", {"purpose": purpose}, file=file, idempotency_key=idempotency_key)
        return File.model_validate(answer.json())

    def get(self, file_id: str) -> File:
        """What is known of a file."""
        return File.model_validate(self._transport.get(f"/v1/files/{file_id}").json())

    def content(self, file_id: str) -> bytes:
        """The bytes of a file."""
        return self._transport.get(f"/v1/files/{file_id}/content").content

    def sign_url(self, file_id: str, *, expires_in: int | None = None) -> SignedUrl:
        """Get an address of the bytes that needs no key, for so many seconds (an hour, if nothing is said)."""
        # Tried like any reading: an address that nobody uses costs nothing.
        answer = self._transport.post(f"/v1/files/{file_id}/url", {"expires_in": expires_in})
        return SignedUrl.model_validate(answer.json())


class Concepts(Resources):
    """What trainings have learned, here or elsewhere."""

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Concept]:
        """Concepts, newest first."""
        return self._page("/v1/concepts", Concept, {"limit": limit, "after": after})

    def get(self, concept_id: str) -> Concept:
        """One concept."""
        return Concept.model_validate(self._transport.get(f"/v1/concepts/{concept_id}").json())

    def download(self, concept_id: str, *, version: int | None = None) -> bytes:
        """The concept file (safetensors) of a version, by default the newest."""
        return self._transport.get(f"/v1/concepts/{concept_id}/content", {"version": version}).content

    def import_file(
        self,
        content: str | PathLike[str] | bytes,
        *,
        concept: str,
        base_model: str | None = None,
        idempotency_key: str | None = None,
    ) -> Concept:
        """Upload a concept file, from a path or from its bytes, and make it the newest version of ``concept``.

        A new name makes a new concept. ``base_model`` defaults to the concept's own, or the one that the file fits.
        """
        file = Files(self._transport).upload(content, purpose="concept_upload")
        body = {"file": file.id, "concept": concept, "base_model": base_model}
        answer = self._transport.post("/v1/concepts/import", body, idempotency_key=idempotency_key)
        return Concept.model_validate(answer.json())


class Models(Resources):
    """Base models and students that jobs can name."""

    def list(self) -> Page[Model]:
        """Every model."""
        return self._page("/v1/models", Model, {})


class JobsOf(Resources, Generic[J]):
    """What can be done with jobs of one kind, or of any."""

    _path: ClassVar[str]
    _kind: type[J]

    def list(self, *, state: str | None = None, limit: int | None = None, after: str | None = None) -> Page[J]:
        """Jobs, newest first."""
        return self._page(self._path, self._kind, {"state": state, "limit": limit, "after": after})

    def get(self, job_id: str) -> J:
        """One job as it stands now."""
        return self._kind.model_validate(self._transport.get(f"{self._path}/{job_id}").json())

    def cancel(self, job_id: str) -> J:
        """End a queued job, or ask the worker of a running one to stop."""
        return self._kind.model_validate(self._transport.post(f"{self._path}/{job_id}/cancel").json())

    def why(self, job_id: str) -> Why:
        """Say why a job waits, what would let it start, and when it may."""
        return Why.model_validate(self._transport.get(f"/v1/jobs/{job_id}/why").json())

    def events(self, job_id: str, *, after: str | None = None, timeout: float | None = None) -> Iterator[Event]:
        """The job's events as they happen, from the first (or the one after ``after``, an event's id) to the last.

        Survives broken connections. Raises WaitTimedOut when the job has not ended after ``timeout`` seconds.
        """
        return follow(
            self._transport,
            f"/v1/jobs/{job_id}/events",
            after=after,
            timeout=timeout,
            has_ended=lambda: self.get(job_id).is_terminal,
        )

    def wait(
        self, job_id: str, *, timeout: float | None = None, on_event: Callable[[Event], object] = lambda _: None
    ) -> J:
        """Wait for the job to succeed and return it; ``on_event`` is called with each of its events.

        Raises:
            JobUnsuccessful: when it failed, was canceled or expired.
            WaitTimedOut: when it has not ended after ``timeout`` seconds.
        """
        for event in self.events(job_id, timeout=timeout):
            on_event(event)
        job = self.get(job_id)
        if job.state != "succeeded":
            raise JobUnsuccessful(job)
        return job


class PausableJobsOf(JobsOf[J]):
    """The same, of jobs that may rest on the way."""

    def pause(self, job_id: str) -> J:
        """Take the job out of the queue; one that runs leaves a checkpoint first."""
        return self._kind.model_validate(self._transport.post(f"{self._path}/{job_id}/pause").json())

    def resume(self, job_id: str) -> J:
        """Let a paused job go on where it was."""
        return self._kind.model_validate(self._transport.post(f"{self._path}/{job_id}/resume").json())


class Trainings(PausableJobsOf[Training]):
    """Jobs that learn a concept from pictures."""

    _path = "/v1/trainings"
    _kind = Training

    def create(
        self,
        *,
        concept: str,
        images: Sequence[str] = (),
        superclass: str | None = None,
        base_model: str | None = None,
        key_lock: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        flip: bool | None = None,
        continue_from: int | None = None,
        webhook: Mapping[str, Any] | None = None,
        priority: str | None = None,
        quote: str | None = None,
        idempotency_key: str | None = None,
        cancel_after: int | str | None = None,
    ) -> Training:
        """Learn the thing in the pictures (``images``: ids of files) under the name ``concept``.

        ``superclass`` is the word for what it is, such as "cat"; a concept that exists has one already.
        ``continue_from`` is a version to go on from: its pictures are learned from as well. ``priority`` (``"low"``,
        ``"normal"``, ``"high"``) orders your own jobs. ``cancel_after`` is how long it is wanted: seconds, or a
        duration such as ``"1h30m"``, and ``quote`` the id of a quote for it. ``webhook`` is told of this job alone,
        as in ``{"url": "https://...", "event_types": ["training.succeeded"]}``. What is left out, the server decides.
        """
        body = {
            "concept": concept,
            "superclass": superclass,
            "images": list(images),
            "base_model": base_model,
            "key_lock": key_lock,
            "steps": steps,
            "seed": seed,
            "flip": flip,
            "continue_from": continue_from,
            "webhook": webhook,
            "priority": priority,
            "quote": quote,
        }
        answer = self._transport.post(self._path, body, idempotency_key=idempotency_key, cancel_after=cancel_after)
        return Training.model_validate(answer.json())


class Distillations(PausableJobsOf[Distillation]):
    """Jobs that make a student, which draws in one step, of a base model."""

    _path = "/v1/distillations"
    _kind = Distillation

    def create(
        self,
        *,
        name: str,
        teacher: str | None = None,
        prompts: Sequence[str] = (),
        pairs: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
        cancel_after: int | str | None = None,
        **settings: Any,
    ) -> Distillation:
        """Distil a student called ``name``; what is left out is the teacher's own setting, or the published one.

        ``settings`` are the API's further ones: ``pair_steps``, ``batch_size``, ``learning_rate``, ``critic_ratio``,
        ``guidance``, ``key_locked``, ``regression_weight``, ``timesteps``, ``webhook``, ``priority``, ``quote``.
        ``cancel_after`` is how long it is wanted.
        """
        body = {
            "name": name,
            "teacher": teacher,
            "prompts": list(prompts) or None,
            "pairs": pairs,
            "steps": steps,
            "seed": seed,
            **settings,
        }
        answer = self._transport.post(self._path, body, idempotency_key=idempotency_key, cancel_after=cancel_after)
        return Distillation.model_validate(answer.json())


class Events(Resources):
    """Everything that happened, for whoever may have missed a webhook."""

    def list(self, *, job: str | None = None, limit: int | None = None, after: str | None = None) -> Page[Event]:
        """Events, oldest first, with the same ids and bodies as the webhooks; ``job`` keeps to those of one job.

        Keep the id of the last one and pass it as ``after`` the next time: none is missed, and none comes twice.
        """
        return self._page("/v1/events", Event, {"job": job, "limit": limit, "after": after})
