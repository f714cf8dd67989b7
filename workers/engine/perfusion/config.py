"""How a concept is learned: the paper's values as defaults, each with its source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from workers.engine.errors import SettingsInvalid

# As public reimplementations use them (after ChenDarYen/Key-Locked-Rank-One-Editing); the paper's own list is unknown.
PHOTO_TEMPLATES = (
    "a photo of a {}",
    "a good photo of a {}",
    "the photo of a {}",
    "a good photo of the {}",
    "image of a {}",
    "image of the {}",
    "A photograph of {}",
    "A {} shown in a photo",
    "A photo of {}",
)


@dataclass(frozen=True)
class PerfusionConfig:
    """Training settings. Page and equation numbers are those of arXiv 2305.01644."""

    steps: int = 400  # as public reimplementations report from the paper, which checkpoints every 25
    batch_size: int = 16  # likewise
    value_lr: float = 0.03  # for o* of the values
    embedding_lr: float = 0.006  # for the concept's token embedding
    gate_bias: float = 0.75  # the ablation on p. 9 prefers a high bias while training
    gate_temperature: float = 0.1
    target_input_decay: float = 0.99  # i* <- decay i* + (1 - decay) * the batch's mean encoding
    flip: bool = True  # with probability 1/2; off for things that have a left and a right
    masked: bool = True  # weigh the loss by where the superclass word looks (zero-shot masking, p. 9)
    templates: tuple[str, ...] = PHOTO_TEMPLATES
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the bound in the message."""
        _require(1 <= self.steps <= 10_000, "steps must be from 1 to 10000")
        _require(1 <= self.batch_size <= 64, "batch_size must be from 1 to 64")
        _require(0 < self.value_lr <= 1, "value_lr must be above 0 and at most 1")
        _require(0 <= self.embedding_lr <= 1, "embedding_lr must be from 0 to 1")
        _require(0 <= self.gate_bias <= 1, "gate_bias must be from 0 to 1")
        _require(0.01 <= self.gate_temperature <= 1, "gate_temperature must be from 0.01 to 1")
        _require(0 <= self.target_input_decay < 1, "target_input_decay must be from 0 to below 1")
        _require(self.checkpoint_every >= 1, "checkpoint_every must be at least 1")
        single = all(template.count("{}") == 1 for template in self.templates)
        _require(bool(self.templates) and single, "each of the templates must hold one {}")

    def override(self, settings: Mapping[str, object]) -> PerfusionConfig:
        """Return a config with some settings replaced; raises SettingsInvalid for unknown names and wrong types."""
        checked: dict[str, object] = {}
        current = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in settings.items():
            _require(name in current, f"unknown training setting {name!r}; known: {', '.join(sorted(current))}")
            checked[name] = _as_type_of(current[name], name, value)
        return replace(self, **checked)  # type: ignore[arg-type]  # names and types were checked above

    @property
    def digest(self) -> str:
        """A short hash; a checkpoint resumes only under equal settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def _as_type_of(example: object, name: str, value: object) -> object:
    if isinstance(example, tuple):
        listed = isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)
        _require(listed, f"{name} must be a list of strings")
        return tuple(value)  # type: ignore[arg-type]  # checked on the line above
    if isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _require(type(value) is type(example), f"{name} must be of type {type(example).__name__}, not {value!r}")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsInvalid(message)
