"""What requests and answers of all resources share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

T = TypeVar("T")


def _storable(value: str) -> str:
    """Refuse what JSON can express and Postgres cannot: NUL, and halves of surrogate pairs."""
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("text may not contain NUL characters or lone surrogates")
    return value


def _written(value: Any) -> Any:
    """Refuse a number for a time: whether it counts seconds or milliseconds, only its sender knows."""
    if isinstance(value, int | float):
        raise ValueError("a time is written as in RFC 3339, such as 2026-01-31T12:00:00Z")
    return value


Text = Annotated[str, AfterValidator(_storable)]
ConceptReference = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+(-[a-z0-9]+)*|cpt_[a-z0-9]+)$", max_length=64)]
Reference = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
GivenTime = Annotated[AwareDatetime, BeforeValidator(_written), Field(strict=False)]
Time = Annotated[datetime, AfterValidator(lambda value: value.astimezone(UTC))]


UploadPurpose = Literal["picture", "concept_upload"]
FilePurpose = Literal["picture", "output", "concept", "pairs", "preview", "student", "concept_upload"]


class RequestBody(BaseModel):
    """Base of what clients send: a field that is not known is an error, not a silent loss; `false` is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Resource(BaseModel):
    """Base of what clients get."""

    model_config = ConfigDict(frozen=True)


class ListOf(Resource, Generic[T]):
    """One page of a list. Go on with `after=<last_id>` while `has_more`."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """The name in the OpenAPI document; a union of jobs has none of its own."""
        return f"ListOf{getattr(params[0], '__name__', 'Job')}"

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="Whether more lies beyond this page, in the direction asked for.")
    first_id: str | None = Field(description="Id of the first item here: pass it as `before`.")
    last_id: str | None = Field(description="Id of the last item here: pass it as `after`.")
