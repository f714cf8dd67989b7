"""The body of every error."""

from __future__ import annotations

from pydantic import Field

from api.schemas.common import Resource


class ErrorMember(Resource):
    """The same error in the shape that OpenAI clients read."""

    message: str = Field(examples=["No file file_01kaj0c5pmq2v8y4dn6rx3zwte."])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The offending field, as a dotted path.", examples=["images.0"])
    code: str = Field(examples=["not-found"])


class FieldError(Resource):
    """One of several things wrong with a request."""

    param: str | None
    message: str


class ReachedLimit(Resource):
    """What is used up."""

    name: str = Field(examples=["budget.tenant"])
    value: float
    left: float


class Problem(Resource):
    """An error (RFC 9457). `code` is stable: look at it, not at the texts."""

    type: str = Field(examples=["urn:lockstep:error:not-found"])
    title: str = Field(examples=["No such thing belongs to the caller"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["No file file_01kaj0c5pmq2v8y4dn6rx3zwte."])
    instance: str = Field(description="The request, as in `X-Request-Id`.", examples=["urn:request:req_01kaj0c5"])
    code: str = Field(examples=["not-found"])
    retryable: bool = Field(description="Whether the same request may succeed later.")
    error: ErrorMember
    limit: ReachedLimit | None = Field(default=None, description="The limit that was reached, if it is one.")
    errors: list[FieldError] | None = Field(default=None, description="Everything wrong, if it is more than one thing.")
