"""Client of Lockstep, a backend for personalised image generation: teach it a thing once, then draw it anywhere."""

from lockstep import webhooks
from lockstep.client import Lockstep
from lockstep.errors import (
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    JobUnsuccessful,
    LockstepAPIError,
    LockstepError,
    NotFound,
    RateLimited,
    ServerError,
    TooLarge,
    Unauthenticated,
    WaitTimedOut,
    WebhookRejected,
)
from lockstep.models import Concept, Event, File, Job, JobError, Model, Page, WebhookEndpoint
from lockstep.retry import RetryPolicy

__all__ = [
    "Concept",
    "Conflict",
    "ConnectionFailed",
    "Event",
    "File",
    "Forbidden",
    "Invalid",
    "Job",
    "JobError",
    "JobUnsuccessful",
    "Lockstep",
    "LockstepAPIError",
    "LockstepError",
    "Model",
    "NotFound",
    "Page",
    "RateLimited",
    "RetryPolicy",
    "ServerError",
    "TooLarge",
    "Unauthenticated",
    "WaitTimedOut",
    "WebhookEndpoint",
    "WebhookRejected",
    "webhooks",
]
