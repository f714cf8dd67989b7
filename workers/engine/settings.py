"""Settings that come from outside, checked one by one against a frozen dataclass of defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

from workers.engine.errors import SettingsInvalid

_ENTRIES: Final = {str: "strings", int: "whole numbers", float: "numbers"}


@dataclass(frozen=True)
class TrainingSettings:
    """The base of a training's settings; subclasses add the fields and check their bounds in ``__post_init__``."""

    def override(self, settings: Mapping[str, object]) -> Self:
        """Return these settings with some replaced; raises SettingsInvalid for unknown names and wrong types."""
        checked: dict[str, Any] = {}
        current = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in settings.items():
            require(name in current, f"unknown training setting {name!r}; known: {', '.join(sorted(current))}")
            checked[name] = _as_type_of(current[name], name, value)
        return replace(self, **checked)

    @property
    def digest(self) -> str:
        """A short hash; a checkpoint resumes only under equal settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def falling_rate(step: int, steps: int, decay_share: float) -> float:
    """Return the share of a learning rate at a step: level, and falling to nothing over the last ``decay_share``."""
    return min(1.0, (steps - step) / max(1.0, decay_share * steps))


def require(condition: bool, message: str) -> None:
    """Raise SettingsInvalid with the message unless the condition holds."""
    if not condition:
        raise SettingsInvalid(message)


def _as_type_of(example: object, name: str, value: object) -> object:
    if isinstance(example, tuple):
        entry = type(example[0])  # no default is empty
        kinds = {int, float} if entry is float else {entry}
        if not isinstance(value, list | tuple) or not all(type(item) in kinds for item in value):
            raise SettingsInvalid(f"{name} must be a list of {_ENTRIES[entry]}")
        return tuple(entry(item) for item in value)
    if isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is type(example), f"{name} must be of type {type(example).__name__}, not {value!r}")
    return value
