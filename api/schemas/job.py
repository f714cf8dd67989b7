"""What jobs of every kind have in common on the wire."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import RequestBody, Resource, Text, Time
from api.urls import Urls
from core.budgets.budgets import gpu_seconds
from core.budgets.quotes import QuoteUse
from core.budgets.terms import Terms
from core.jobs import models
from core.jobs.states import JobStage, JobState
from core.jobs.submission import QueueLimits
from core.scheduling.fairshare import Priority
from core.webhooks.requested import RequestedWebhook

PriorityName = Literal["low", "normal", "high"]
QuoteReference = Annotated[str, StringConstraints(pattern=r"^quo_[a-z0-9]+$", max_length=64)]


class JobWebhook(RequestBody):
    """Where the events of one job are sent."""

    url: Text = Field(min_length=1, max_length=2048)
    event_types: list[Text] = Field(default=[], max_length=100, description="Only these types; none: all of the job.")


class ShownWebhook(Resource):
    """Where the events of the job are sent."""

    url: str
    event_types: list[str] = Field(description="Empty: all of the job.")
    endpoint_id: str = Field(description="Whose `deliveries` tell what became of them; it stands for the host.")


class JobRequest(RequestBody):
    """What every request for a job may say."""

    priority: PriorityName = Field(
        default="normal",
        description="Its class among your own jobs: one above another is worth a minute of waiting. It takes nothing "
        "from other tenants.",
    )
    webhook: JobWebhook | None = Field(
        default=None, description="Told of this job, beside the tenant's webhook endpoints."
    )

    def limits(self, queue: QueueLimits, api_key_id: str | None, cancel_after: timedelta | None) -> QueueLimits:
        """What its jobs are admitted under: those of the queue, at its own priority."""
        limits = queue.of(api_key_id, Priority[self.priority.upper()], cancel_after)
        if self.webhook is None:
            return limits
        return replace(limits, webhook=RequestedWebhook(self.webhook.url, self.webhook.event_types))


class QuotableRequest(JobRequest):
    """The same, of requests that can be quoted."""

    quote: QuoteReference | None = Field(
        default=None, description="Id of a quote for this request: no more is charged than it says."
    )

    def limits(self, queue: QueueLimits, api_key_id: str | None, cancel_after: timedelta | None) -> QueueLimits:
        """The same, on the quote's terms."""
        limits = super().limits(queue, api_key_id, cancel_after)
        if self.quote is None:
            return limits
        return replace(limits, terms=Terms(queue.terms.max_jobs, QuoteUse(self.quote, self.sha256())))

    def sha256(self) -> str:
        """What a quote is given for: all that is asked for but the quote itself, how urgent it is, and who is told."""
        asked = self.model_dump_json(by_alias=True, exclude={"quote", "priority", "webhook"})
        return hashlib.sha256(f"{type(self).__name__} {asked}".encode()).hexdigest()


class JobError(Resource):
    """Why a job failed."""

    code: str = Field(description="Stable.", examples=["worker-lost"])
    message: str
    retryable: bool = Field(description="Whether the same job may succeed another time.")


class JobWarning(Resource):
    """Something about an accepted request that is likely a mistake."""

    code: str = Field(examples=["superclass-unlisted"])
    message: str
    param: str | None


class JobLinks(Resource):
    """Where to go from here."""

    self: str
    events: str = Field(description="A stream of what happens to the job (SSE).")
    cancel: str = Field(description="POST here to cancel.")


class JobBase(Resource):
    """One unit of work and where it stands."""

    id: str = Field(examples=["job_01kaj0c5pmq2v8y4dn6rx3zwte"])
    state: JobState = Field(
        description="`queued` and `running` go on; `succeeded`, `failed`, `canceled` and `expired` are final."
    )
    stage: JobStage | None = Field(description="What a running job is busy with.")
    created_at: Time
    started_at: Time | None = Field(description="When the latest attempt began.")
    finished_at: Time | None
    deadline_at: Time | None = Field(description="It expires if it still waits then, and is canceled if it runs.")
    retry_of: str | None = Field(description="The job that did not succeed, of which this is another try.")
    priority: PriorityName = Field(description="Its class among its tenant's jobs.")
    attempt: int = Field(description="Attempts begun so far.")
    max_attempts: int
    progress: dict[str, Any] | None = Field(description="How far it is, as its worker last reported.")
    parent_id: str | None = Field(description="The job that this one was made for, and that waits for it.")
    waits_for_children: bool = Field(description="Whether jobs that were made for it have yet to succeed.")
    paused: bool = Field(description="Whether it stays out of the queue until it is resumed.")
    pause_requested: bool = Field(description="Whether somebody asked to pause; a running job stops shortly after.")
    cancel_requested: bool = Field(description="Whether somebody asked to cancel; a running job stops shortly after.")
    gpu_seconds: float = Field(description="GPU time used by all attempts.")
    reserved_gpu_seconds: float = Field(description="What is held back of the budget for it until it ends.")
    charged_gpu_seconds: float = Field(
        description="What is charged: for attempts that succeeded, were canceled or are to go on; nothing for lost or "
        "failed ones, or if the job fails."
    )
    quote: str | None = Field(description="The quote that it was submitted with.")
    webhook: ShownWebhook | None = Field(description="The one that its request named.")
    error: JobError | None = Field(description="Why it failed, or why its last attempt did.")
    warnings: list[JobWarning]
    links: JobLinks


def job_members(job: models.Job, urls: Urls) -> dict[str, Any]:
    """The members that jobs of every kind have."""
    own = urls.job(job)
    return {
        "id": job.id,
        "object": job.kind,
        "kind": job.kind,
        "state": job.state,
        "stage": job.stage,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "deadline_at": job.deadline_at,
        "retry_of": job.retry_of,
        "priority": Priority(job.priority).name.lower(),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "progress": job.progress,
        "parent_id": job.parent_id,
        "waits_for_children": job.blocked,
        "paused": job.pause_requested_at is not None and job.state == JobState.QUEUED,
        "pause_requested": job.pause_requested_at is not None,
        "cancel_requested": job.cancel_requested_at is not None,
        "gpu_seconds": job.gpu_seconds,
        "reserved_gpu_seconds": gpu_seconds(0 if job.finished_at else job.reserved_ms),
        "charged_gpu_seconds": gpu_seconds(job.charged_ms),
        "quote": job.quote_id,
        "webhook": job.webhook,
        "error": job.error,
        "warnings": job.warnings,
        "links": JobLinks(self=own, events=urls.job_events(job.id), cancel=f"{own}/cancel"),
    }
