"""The one map from what goes wrong to HTTP: problem details (RFC 9457) that OpenAI and Replicate clients read too.

Every answer of status 400 and above is made here. ``docs/errors.md`` lists the codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from core import errors
from core.db.transactions import OutcomeUnknown
from core.errors import Limit, LockstepError

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[LockstepError], int] = {
    errors.Unauthenticated: 401,
    errors.SignInFailed: 401,
    errors.TooManyTries: 429,
    errors.Forbidden: 403,
    errors.SignatureInvalid: 403,
    errors.UrlExpired: 403,
    errors.NotFound: 404,
    errors.Invalid: 422,
    errors.PictureUnreadable: 422,
    errors.PictureTooLarge: 422,
    errors.NoPictures: 422,
    errors.TooManyPictures: 422,
    errors.UnknownPlaceholder: 422,
    errors.ConceptUnused: 422,
    errors.PlaceholderTaken: 422,
    errors.ConceptUnreadable: 422,
    errors.ConceptModelUnknown: 422,
    errors.ModelUnknown: 422,
    errors.ModelNotBase: 422,
    errors.NoPrompts: 422,
    errors.SizeUnsupported: 422,
    errors.StepsUnsupported: 422,
    errors.KeyLockUnsupported: 422,
    errors.GuidanceUnsupported: 422,
    errors.WebhookTargetRefused: 422,
    errors.TenantNotChosen: 422,
    errors.UploadMismatch: 422,
    errors.IdempotencyKeyReused: 422,
    errors.Conflict: 409,
    errors.NotCancelable: 409,
    errors.NotMovable: 409,
    errors.NotPausable: 409,
    errors.NotRetryable: 409,
    errors.ModelNameTaken: 409,
    errors.ModelNotReady: 409,
    errors.ConceptNameTaken: 409,
    errors.ConceptNotReady: 409,
    errors.ConceptModelMismatch: 409,
    errors.NotReproducible: 409,
    errors.WebhookEndpointDisabled: 409,
    errors.IdempotencyInProgress: 409,
    errors.QuoteMismatch: 422,
    errors.QuoteUsed: 409,
    errors.QuoteExpired: 409,
    errors.StorageFull: 409,
    errors.UploadIncomplete: 409,
    errors.UploadCompleted: 409,
    errors.BudgetExceeded: 402,
    errors.QueueFull: 429,
    errors.RateLimited: 429,
    errors.TooLarge: 413,
    errors.StorageUnavailable: 503,
}

# Seconds after which an error that passes by itself is worth another try.
_RETRY_AFTER: Mapping[str, int] = {
    "idempotency-in-progress": 1,
    "storage-unavailable": 5,
    "too-many-tries": 900,
    "unavailable": 2,
    "queue-full": 30,
}
_PATIENCE = 5  # seconds: clients that repeat by themselves do not wait for longer, whatever they are told

# Codes of what HTTP itself refuses; anything else of the 400s is an invalid request.
HTTP_CODES: Mapping[int, str] = {
    404: "not-found",
    405: "method-not-allowed",
    413: errors.TooLarge.code,
    416: "range-not-satisfiable",
}

# Clients repeat these without an idempotency key unless they are told not to.
JOB_CREATING = frozenset(
    {
        "/v1/trainings",
        "/v1/distillations",
        "/v1/generations",
        "/v1/generations/sweep",
        "/v1/generations/reproduce",
        "/v1/generations/{job_id}/reproduce",
        "/v1/jobs/{job_id}/retry",
        "/v1/jobs/retry",
    }
)
# The studio's forms that do the same.
_BY_FORMS = frozenset(
    {
        "/studio/drafts",
        "/studio/generations",
        "/studio/comparisons",
        "/studio/trainings",
        "/studio/pictures/{file_id}/reproduce",
    }
)
_JOB_CREATING = re.compile("|".join(re.sub(r"\{\w+\}", "[^/]+", path) for path in sorted(JOB_CREATING | _BY_FORMS)))


def makes_job(method: str, path: str) -> bool:
    """Whether such a request makes a job if it succeeds."""
    return method == "POST" and _JOB_CREATING.fullmatch(path.rstrip("/")) is not None


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong, ready to be told."""

    status: int
    code: str
    title: str
    detail: str
    param: str | None = None
    retryable: bool = False
    job_may_exist: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[Mapping[str, str | None]] = ()
    limit: Limit | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        """The problem's members; ``error`` is the same in the shape that OpenAI clients read."""
        members: dict[str, Any] = {
            "type": f"urn:lockstep:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:request:{request_id}",
            "code": self.code,
            "retryable": self.retryable,
            "error": {
                "message": self.detail,
                "type": _openai_type(self.status),
                "param": self.param,
                "code": self.code,
            },
        }
        if self.limit is not None:
            members["limit"] = asdict(self.limit)
        return members | ({"errors": list(self.errors)} if len(self.errors) > 1 else {})


def trouble_of(error: LockstepError) -> Trouble:
    """How one of our own errors is told."""
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, errors.Unauthenticated) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Trouble(
        status=STATUS[type(error)],
        code=error.code,
        title=error.title(),
        detail=error.detail,
        param=error.param,
        retryable=error.retryable,
        headers=headers,
        limit=error.limit,
    )


def is_final(error: LockstepError) -> bool:
    """Whether the same request would meet the same error for ever: then the answer may be kept."""
    return STATUS[type(error)] in {403, 404, 413, 422}


INTERNAL = Trouble(
    500, "internal", "The server failed", "Something broke on our side; it was logged.", job_may_exist=True
)
UNAVAILABLE = Trouble(
    503, "unavailable", "The server cannot answer now", "The database does not answer; try again.", retryable=True
)
OUTCOME_UNKNOWN = Trouble(
    503,
    "unavailable",
    "The server cannot answer now",
    "The database went away at the last moment: look whether the request was carried out before repeating it.",
    retryable=True,
    job_may_exist=True,
)


def respond(trouble: Trouble, *, method: str, path: str, request_id: str) -> JSONResponse:
    """The answer that tells of trouble; job-creating requests are told whether to repeat themselves."""
    return problem_response(
        trouble.body(request_id),
        headers=trouble.headers,
        method=method,
        path=path,
        job_may_exist=trouble.job_may_exist,
    )


def problem_response(
    body: Mapping[str, Any],
    *,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    job_may_exist: bool = False,
) -> JSONResponse:
    """A problem's body with the headers that belong to it."""
    sent = dict(headers or {})
    pause = _RETRY_AFTER.get(body["code"])
    if pause is not None:
        sent["Retry-After"] = str(pause)
    if makes_job(method, path):
        may_repeat = body["retryable"] and not job_may_exist and int(sent.get("Retry-After", 0)) <= _PATIENCE
        sent["x-should-retry"] = "true" if may_repeat else "false"
    return JSONResponse(body, status_code=body["status"], headers=sent, media_type=MEDIA_TYPE)


def install(app: FastAPI, told_to_people: Callable[[Request, Trouble], Response | None]) -> None:
    """Answer every error of the app's routes with a problem, or as ``told_to_people`` says."""

    def told(request: Request, trouble: Trouble) -> Response:
        return told_to_people(request, trouble) or respond(
            trouble, method=request.method, path=request.url.path, request_id=request.scope["state"]["request_id"]
        )

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, LockstepError)
        return told(request, trouble_of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return told(request, _invalid(error))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return told(request, _refused(error))

    async def unavailable(request: Request, _: Exception) -> Response:
        return told(request, UNAVAILABLE)

    async def unknown(request: Request, _: Exception) -> Response:
        return told(request, OUTCOME_UNKNOWN)

    app.add_exception_handler(LockstepError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(OutcomeUnknown, unknown)
    for outage in (OperationalError, InterfaceError, InternalError, PoolTimeout):
        app.add_exception_handler(outage, unavailable)


def _invalid(error: RequestValidationError) -> Trouble:
    """A request that does not have the form it should: the first thing wrong, and the list of all."""
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return Trouble(400, "invalid-request", "The request cannot be read", "The body is not valid JSON.")
    wrong = [{"param": _param(item["loc"]), "message": _message(item)} for item in found[:20]]
    first = wrong[0]
    detail = first["message"] if first["param"] is None else f"{first['param']}: {first['message']}"
    return Trouble(422, errors.Invalid.code, errors.Invalid.title(), detail or "", param=first["param"], errors=wrong)


def _param(location: Sequence[str | int]) -> str | None:
    """The field's dotted path without the part of the request it is in."""
    return ".".join(str(step) for step in location[1:]) or None


def _message(item: Mapping[str, Any]) -> str:
    if tuple(item["loc"]) == ("body",):
        return "The body must be a JSON object sent as application/json."
    return str(item["msg"]).removeprefix("Value error, ")


def _refused(error: HTTPException) -> Trouble:
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{phrase}."
    code = HTTP_CODES.get(error.status_code, "invalid-request")
    return Trouble(error.status_code, code, phrase, detail, headers=error.headers or {})


_OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def _openai_type(status: int) -> str:
    return _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
