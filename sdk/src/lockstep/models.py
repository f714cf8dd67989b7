"""What the server answers, typed and frozen.

A newer server may send more: unknown fields are kept and can be read as attributes or through ``model_extra``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

_TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


class Resource(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, extra="allow")


class File(Resource):
    """An uploaded or produced object."""

    id: str
    purpose: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    job_id: str | None = None
    created_at: datetime


class SignedUrl(Resource):
    """An address of a file's bytes that needs no key, until then."""

    url: str
    expires_at: datetime


class Concept(Resource):
    """What Perfusion learned of a thing; ``latest_version`` is None until there is a version."""

    id: str
    name: str
    superclass: str
    base_model: str
    latest_version: int | None = None
    created_at: datetime


class GrantedConcept(Concept):
    """A concept of another tenant that may be drawn with, as ``reference``."""

    owner: str
    reference: str


class Grant(Resource):
    """Leave for a tenant, whose id it has, to draw with a concept."""

    id: str
    concept_id: str
    created_at: datetime


class ApiKey(Resource):
    """A key, without the key itself."""

    id: str
    name: str
    hint: str
    scopes: list[str]
    max_running: int | None = None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    previous_until: datetime | None = None
    revoked_at: datetime | None = None


class NewApiKey(ApiKey):
    """A key that was just made, told this once."""

    key: str = Field(repr=False)


class Model(Resource):
    """A base model or a student; a student is ``ready`` once a distillation has made it."""

    id: str
    name: str
    kind: str
    family: str
    ready: bool = True
    teacher_id: str | None = None
    guidance: str = "classifier_free"


class JobError(Resource):
    """Why a job failed; ``retryable`` says whether the same job may succeed another time."""

    code: str
    message: str
    retryable: bool


class JobWarning(Resource):
    """Something about an accepted request that is likely a mistake."""

    code: str
    message: str
    param: str | None = None


class JobWebhook(Resource):
    """Where the events of one job are sent; the endpoint's deliveries tell what became of them."""

    url: str
    event_types: tuple[str, ...] = ()
    endpoint_id: str


class Job(Resource):
    """One unit of work and where it stands.

    A ``state`` is ``queued``, ``running``, ``succeeded``, ``failed``, ``canceled`` or ``expired``; ``gpu_seconds`` are
    those of all attempts.
    """

    id: str
    kind: str
    state: str
    stage: str | None = None
    attempt: int
    progress: dict[str, Any] | None = None
    paused: bool = False
    gpu_seconds: float = 0.0
    error: JobError | None = None
    warnings: tuple[JobWarning, ...] = ()
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    retry_of: str | None = None
    webhook: JobWebhook | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return self.state in _TERMINAL


class Refusal(Resource):
    """A job that was not tried again, and why."""

    id: str
    code: str
    message: str


class BulkResult(Resource):
    """What became of the oldest jobs of a filter: ``ids`` of those canceled, of the new ones, or in a dry run of those
    that it would be. ``has_more``: another call deals with the next.
    """

    dry_run: bool
    count: int
    ids: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()
    has_more: bool


class TrainingResult(Resource):
    """What was learned."""

    concept_id: str
    version: int
    file_id: str
    size_bytes: int
    metrics: dict[str, Any]


class Training(Job):
    """A job that learns a concept from pictures; ``result`` is set once it has succeeded."""

    result: TrainingResult | None = None


class DistillationResult(Resource):
    """The student: draw with it as ``model``."""

    model_id: str
    model: str
    file_id: str
    size_bytes: int
    timesteps: tuple[int, ...]
    metrics: dict[str, Any]


class Distillation(Job):
    """A job that distils a student from a base model; ``result`` is set once it has succeeded."""

    waits_for_children: bool = False
    result: DistillationResult | None = None


class SafetyVerdict(Resource):
    """What the server's safety checker says of a picture: a score from 0 to 1, and whether that is unsafe."""

    score: float
    unsafe: bool


class WithheldImage(Resource):
    """A picture that was drawn and is kept from everybody; ``code`` says why."""

    code: str
    seed: int
    safety: SafetyVerdict | None = None


class GeneratedImage(Resource):
    """One picture; the same prompt with this seed draws it again, in a sweep with this value of the swept dial."""

    file_id: str
    seed: int
    width: int
    height: int
    media_type: str = "image/png"
    safety: SafetyVerdict | None = None
    gate_bias: float | None = None
    gate_temperature: float | None = None


class GenerationResult(Resource):
    """What was drawn; ``withheld`` pictures were asked for too, but nobody gets to see them."""

    images: tuple[GeneratedImage, ...]
    withheld: tuple[WithheldImage, ...] = ()


class Generation(Job):
    """A job that draws pictures of a prompt; ``result`` is set once it has succeeded.

    ``reproduces`` is the job whose pictures it draws again, where it does that; a ``draft`` is a quick look of the
    studio, whose picture the next one replaces.
    """

    reproduces: str | None = None
    draft: bool = False
    result: GenerationResult | None = None


class StartEstimate(Resource):
    """By when half, and nine tenths, of such jobs have started: seconds from now."""

    p50: float
    p90: float


class Why(Resource):
    """Why a job waits: a code, the reason in words, and what would let it start.

    ``position`` counts its tenant's own jobs from 1; ``starts_in`` is None where nobody can know.
    """

    reason: str
    detail: str
    unblocked_by: str | None = None
    position: int | None = None
    jobs_ahead: int | None = None
    tenants_ahead: int | None = None
    starts_in: StartEstimate | None = None


class Budget(Resource):
    """What a tenant, or one of its API keys, may spend; no ``limit``: anything."""

    api_key_id: str | None = None
    limit: float | None = None
    period: str
    period_start: datetime | None = None
    hard: bool
    spent: float
    reserved: float
    left: float | None = None


class Quote(Resource):
    """The most that one request will cost, if it names the quote before that expires."""

    id: str
    kind: str
    gpu_seconds: float
    created_at: datetime
    expires_at: datetime


class Used(Resource):
    """Jobs that ended and what was charged for them, of one group."""

    day: date | None = None
    kind: str | None = None
    model: str | None = None
    api_key: str | None = None
    jobs: int
    gpu_seconds: float


class Usage(Resource):
    """What was used on some days."""

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    data: tuple[Used, ...] = ()
    has_more: bool
    total: Used


class RateLimit(Resource):
    """How many requests are served in a window, and how many of them are left at this moment."""

    name: str
    limit: int
    window_seconds: int
    left: int


class Cap(Resource):
    """The most of something there may be; no ``limit``: as much as you like."""

    limit: int | None = None
    used: int


class Limits(Resource):
    """What holds for an API key."""

    rates: tuple[RateLimit, ...] = ()
    jobs: Cap
    tenant_max_running: int
    stored_bytes: Cap
    open_uploads: Cap | None = None
    budgets: tuple[Budget, ...] = ()


class Event(Resource):
    """Something that happened to a job, once; the same on the stream, in the list and in webhooks."""

    id: str
    type: str
    created_at: datetime
    sequence: int
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether it ends its job."""
        return self.type.rpartition(".")[2] in _TERMINAL


T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list. Iterating goes on through the pages that follow; ``data`` is this page only."""

    data: tuple[T, ...]
    has_more: bool
    last_id: str | None
    following: Callable[[str], Page[T]] = field(repr=False, compare=False)

    def __iter__(self) -> Iterator[T]:
        page = self
        while True:
            yield from page.data
            if not page.has_more or page.last_id is None:
                return
            page = page.following(page.last_id)
