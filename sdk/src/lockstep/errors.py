"""What can go wrong between a caller and a Lockstep server.

::

    LockstepError
    ├── ConnectionFailed       no usable answer, after every retry
    ├── LockstepAPIError       the server said no: see ``code``
    │   ├── Unauthenticated    401
    │   ├── BudgetExceeded     402
    │   ├── Forbidden          403
    │   ├── NotFound           404; also for what belongs to another tenant
    │   ├── Conflict           409
    │   ├── TooLarge           413
    │   ├── Invalid            400 and 422: the request can never succeed as it stands
    │   ├── RateLimited        429
    │   └── ServerError        5xx
    ├── JobUnsuccessful        the job that was waited for failed, was canceled or expired
    ├── WaitTimedOut           the job has not ended yet; it goes on
    └── WebhookRejected        the webhook is not what the server signed

``code`` is stable and is what programs should look at; the server's documentation lists the codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from lockstep.models import Job


class LockstepError(Exception):
    """Base of every error that this package raises on purpose."""


class ConnectionFailed(LockstepError):
    """The server gave no usable answer, after every retry."""


class LockstepAPIError(LockstepError):
    """The server refused a request; the attributes are the members of its ``application/problem+json``."""

    def __init__(self, *, status: int, code: str, detail: str, param: str | None, request_id: str | None) -> None:
        super().__init__(f"{detail} ({code}, HTTP {status})")
        self.status = status
        self.code = code
        self.detail = detail
        self.param = param
        self.request_id = request_id


class Unauthenticated(LockstepAPIError):
    """The API key is missing or does not work."""


class BudgetExceeded(LockstepAPIError):
    """The budget does not suffice."""


class Forbidden(LockstepAPIError):
    """The API key lacks a scope."""


class NotFound(LockstepAPIError):
    """Nothing of that id belongs to the caller."""


class Conflict(LockstepAPIError):
    """The request contradicts the present state."""


class TooLarge(LockstepAPIError):
    """The body is larger than the server accepts."""


class Invalid(LockstepAPIError):
    """The request can never succeed as it stands."""


class RateLimited(LockstepAPIError):
    """Too many requests, or too many jobs waiting."""


class ServerError(LockstepAPIError):
    """The server could not do it; the same request may succeed later."""


class JobUnsuccessful(LockstepError):
    """A job that was waited for ended without success; ``job`` says how."""

    def __init__(self, job: Job) -> None:
        reason = f": {job.error.message}" if job.error is not None else ""
        super().__init__(f"{job.kind} {job.id} {job.state}{reason}")
        self.job = job


class WaitTimedOut(LockstepError):
    """The job has not ended within the time given; it goes on and can be waited for again."""


class WebhookRejected(LockstepError):
    """The signature, the timestamp or the body of a webhook is not what the server sends."""


_BY_STATUS: dict[int, type[LockstepAPIError]] = {
    400: Invalid,
    401: Unauthenticated,
    402: BudgetExceeded,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    429: RateLimited,
}


def error_from(response: httpx.Response) -> LockstepAPIError:
    """The error that a response with a status of 400 or above stands for; its body must have been read."""
    problem = _problem(response)
    status = response.status_code
    kind = ServerError if status >= 500 else _BY_STATUS.get(status, LockstepAPIError)
    return kind(
        status=status,
        code=str(problem.get("code") or f"http-{status}"),
        detail=str(problem.get("detail") or problem.get("title") or response.reason_phrase),
        param=problem.get("param") or _member(problem, "error").get("param"),
        request_id=response.headers.get("x-request-id"),
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:  # a proxy's page, not the server's answer
        return {}
    return body if isinstance(body, dict) else {}


def _member(problem: dict[str, Any], name: str) -> dict[str, Any]:
    value = problem.get(name)
    return value if isinstance(value, dict) else {}
