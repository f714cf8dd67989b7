"""What the studio's forms say, as the request that the API would get: the same rules, the same errors.

A concept's dials are fields of its own: `bias.tom`, `lock.tom`. An empty field says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.schemas.drawing import CreateGeneration
from api.schemas.trainings import CreateTraining
from core.jobs.requests import placeholders

B = TypeVar("B", bound=BaseModel)

_OF_DRAWINGS: Final = ("prompt", "negative_prompt", "model", "steps", "guidance", "seed", "n", "size")
_OF_TRAININGS: Final = ("concept", "superclass", "base_model", "key_lock", "steps", "continue_from")
_DIALS: Final[Mapping[str, str]] = {"bias": "gate_bias", "lock": "key_lock"}


class Fields(Protocol):
    """A form's fields, or an address's."""

    def get(self, key: str, /) -> Any:
        """The last value of a field, or None."""

    def getlist(self, key: str, /) -> list[Any]:
        """All values of a field."""


def as_generation(fields: Fields, **fixed: Any) -> CreateGeneration:
    """The generation that a form asks for; raises RequestValidationError. Dials of unnamed concepts count nothing."""
    asked = _said(fields, _OF_DRAWINGS)
    turned = {name: dials_of(fields, name) for name in placeholders(str(asked.get("prompt", "")))}
    concepts = [{"name": name, **dials} for name, dials in turned.items() if dials]
    return _validated(CreateGeneration, {**asked, "concepts": concepts, **fixed})


def dials_of(fields: Fields, name: str) -> dict[str, Any]:
    """What a form says of a concept, by the API's names."""
    return {dial: value for field, dial in _DIALS.items() if (value := fields.get(f"{field}.{name}"))}


def as_training(fields: Fields) -> CreateTraining:
    """The training that a form asks for; raises RequestValidationError."""
    asked = _said(fields, _OF_TRAININGS)
    return _validated(CreateTraining, {**asked, "images": fields.getlist("images"), "flip": bool(fields.get("flip"))})


def _said(fields: Fields, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := fields.get(name))}


def _validated(kind: type[B], asked: Mapping[str, Any]) -> B:
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from error
