"""Every error a caller can act on.

::

    LockstepError
    ├── Unauthenticated            no key, or one that does not work
    │   └── SignInFailed
    ├── TooManyTries               to sign in
    ├── Forbidden                  the key lacks a scope
    │   └── SignatureInvalid, UrlExpired
    ├── NotFound                   nothing of that id belongs to the caller
    ├── Invalid                    the request can never succeed as it stands
    │   ├── PictureUnreadable, PictureTooLarge, TooManyPictures, NoPictures
    │   ├── UnknownPlaceholder, ConceptUnused, PlaceholderTaken
    │   ├── ConceptUnreadable, ConceptModelUnknown
    │   ├── ModelUnknown, ModelNotBase, NoPrompts
    │   ├── SizeUnsupported, StepsUnsupported, GuidanceUnsupported, KeyLockUnsupported
    │   ├── WebhookTargetRefused, TenantNotChosen
    │   ├── QuoteMismatch
    │   ├── UploadMismatch
    │   └── IdempotencyKeyReused
    ├── Conflict                   the request contradicts the present state
    │   ├── NotCancelable, NotMovable, NotPausable, NotRetryable, IdempotencyInProgress
    │   ├── ConceptNameTaken, ConceptNotReady, ConceptModelMismatch
    │   ├── NotReproducible, QuoteUsed, QuoteExpired, StorageFull, WebhookEndpointDisabled
    │   ├── UploadIncomplete, UploadCompleted
    │   └── ModelNameTaken, ModelNotReady
    ├── TooLarge                   the body is over the limit
    ├── BudgetExceeded, QueueFull, RateLimited   what the tenant or the key may have is used up
    └── StorageUnavailable         object storage does not answer; try again

The docstring of a leaf is its title. ``code`` is stable; ``param`` names the offending field; ``limit`` says what is
used up.
``api/errors.py`` is the one map from these to HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Limit:
    """What stands in the way, its value, and how much of it is left."""

    name: str
    value: float
    left: float


class LockstepError(Exception):
    """Something a caller can act on."""

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, param: str | None = None, limit: Limit | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.limit = limit
        self.retry_after = retry_after  # seconds, where they are known

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring, without the full stop."""
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")


class Unauthenticated(LockstepError):
    """The API key or the session is missing or does not work."""

    code = "unauthenticated"


class SignInFailed(Unauthenticated):
    """The email address or the password is wrong."""

    code = "sign-in-failed"


class TooManyTries(LockstepError):
    """Somebody tried too often to sign in to that account."""

    code = "too-many-tries"
    retryable = True


class Forbidden(LockstepError):
    """The caller may not do this."""

    code = "forbidden"


class SignatureInvalid(Forbidden):
    """The signed address was altered, or is for something else."""

    code = "signature-invalid"


class UrlExpired(Forbidden):
    """The signed address holds no more."""

    code = "url-expired"


class NotFound(LockstepError):
    """No such thing belongs to the caller."""

    code = "not-found"


class Invalid(LockstepError):
    """The request can never succeed as it stands."""

    code = "validation"


class PictureUnreadable(Invalid):
    """The file is not a picture that can be read."""

    code = "picture-unreadable"


class PictureTooLarge(Invalid):
    """The picture has more pixels than are accepted."""

    code = "picture-too-large"


class NoPictures(Invalid):
    """A training needs at least one picture."""

    code = "no-pictures"


class TooManyPictures(Invalid):
    """A training takes fewer pictures than were given."""

    code = "too-many-pictures"


class UnknownPlaceholder(Invalid):
    """The prompt names a concept that the request does not."""

    code = "unknown-placeholder"


class ConceptUnused(Invalid):
    """The request names a concept that the prompt never uses."""

    code = "concept-unused"


class PlaceholderTaken(Invalid):
    """Two concepts of the request would answer to one placeholder."""

    code = "placeholder-taken"


class ConceptUnreadable(Invalid):
    """The file is not a concept file that can be read."""

    code = "concept-unreadable"


class ConceptModelUnknown(Invalid):
    """No base model here is the one that the concept was learned on."""

    code = "concept-model-unknown"


class ModelUnknown(Invalid):
    """No such base model is registered."""

    code = "model-unknown"


class ModelNotBase(Invalid):
    """The model is a student: concepts are learned, and students distilled, on its teacher."""

    code = "model-not-base"


class NoPrompts(Invalid):
    """The model brings no prompts of its own, so the distillation needs some."""

    code = "no-prompts"


class StepsUnsupported(Invalid):
    """The model does not draw in that number of steps."""

    code = "steps-unsupported"


class GuidanceUnsupported(Invalid):
    """The model does not take the guidance or the negative prompt, or, to be distilled, has no guidance to build in."""

    code = "guidance-unsupported"


class KeyLockUnsupported(Invalid):
    """The concept's version was trained without keys of its own."""

    code = "key-lock-unsupported"


class SizeUnsupported(Invalid):
    """The model cannot draw pictures of that size."""

    code = "size-unsupported"


class WebhookTargetRefused(Invalid):
    """Webhooks may not be sent to that address."""

    code = "webhook-target-refused"


class TenantNotChosen(Invalid):
    """The user belongs to several tenants, and names none."""

    code = "tenant-not-chosen"


class QuoteMismatch(Invalid):
    """The quote was given for another request."""

    code = "quote-mismatch"


class UploadMismatch(Invalid):
    """The uploaded bytes are not those that were announced."""

    code = "upload-mismatch"


class IdempotencyKeyReused(Invalid):
    """The idempotency key was used before with another body."""

    code = "idempotency-key-reused"


class Conflict(LockstepError):
    """The request contradicts the present state."""

    code = "conflict"


class NotCancelable(Conflict):
    """The job has already ended."""

    code = "not-cancelable"


class NotPausable(Conflict):
    """The job has already ended, or is over too soon to be paused."""

    code = "not-pausable"


class NotRetryable(Conflict):
    """Only a job that failed, was canceled or expired is tried again, and only once."""

    code = "not-retryable"


class NotMovable(Conflict):
    """Only a job that waits in the queue can change its priority."""

    code = "not-movable"


class ModelNameTaken(Conflict):
    """A model of that name exists already."""

    code = "model-name-taken"


class ModelNotReady(Conflict):
    """No distillation of the student has succeeded yet."""

    code = "model-not-ready"


class ConceptNameTaken(Conflict):
    """A concept of that name exists already."""

    code = "concept-name-taken"


class ConceptNotReady(Conflict):
    """The concept has no trained version yet."""

    code = "concept-not-ready"


class ConceptModelMismatch(Conflict):
    """The concept was trained on another base model."""

    code = "concept-model-mismatch"


class NotReproducible(Conflict):
    """What the picture was drawn with is gone, or no generation drew it."""

    code = "not-reproducible"


class StorageFull(Conflict):
    """The files take all the room there is for them."""

    code = "storage-full"


class UploadIncomplete(Conflict):
    """A part of the upload has not arrived."""

    code = "upload-incomplete"


class UploadCompleted(Conflict):
    """The upload has become a file, and takes no more bytes."""

    code = "upload-completed"


class QuoteUsed(Conflict):
    """The quote was used already."""

    code = "quote-used"


class QuoteExpired(Conflict):
    """The quote holds no more."""

    code = "quote-expired"


class WebhookEndpointDisabled(Conflict):
    """Nothing is sent to a webhook endpoint that is disabled; enable it first."""

    code = "webhook-endpoint-disabled"


class IdempotencyInProgress(Conflict):
    """A request with this idempotency key is still being handled."""

    code = "idempotency-in-progress"
    retryable = True


class TooLarge(LockstepError):
    """The body is larger than is accepted."""

    code = "too-large"


class BudgetExceeded(LockstepError):
    """The budget does not suffice."""

    code = "budget-exceeded"


class QueueFull(LockstepError):
    """So many jobs wait or run that no more are taken."""

    code = "queue-full"
    retryable = True


class RateLimited(LockstepError):
    """Too many requests in too short a time."""

    code = "rate-limited"
    retryable = True


class StorageUnavailable(LockstepError):
    """Object storage does not answer."""

    code = "storage-unavailable"
    retryable = True
