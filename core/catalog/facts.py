"""What a model says of itself: ``lockstep.json`` beside its weights, or what its family leaves to assume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_FILE = "lockstep.json"


class ModelFacts(BaseModel):
    """Facts the product uses: defaults of a request, and what can be asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    family: str = "stable-diffusion"
    size: int = 512  # pixels a side; other sizes must be multiples of `size_multiple`
    size_multiple: int = 64
    max_size: int = 1024
    default_steps: int = 50
    default_guidance: float = 6.0
    default_key_lock: str = "local"
    gate_bias: dict[str, float] = Field(default_factory=lambda: {"local": 0.7, "global": 0.5})
    gate_temperature: float = 0.15
    superclasses: tuple[str, ...] = ()  # empty: any word
    perfusion: dict[str, Any] = Field(default_factory=dict)  # training settings, which the engine reads by itself


def read_facts(location: str) -> ModelFacts:
    """The facts of a model folder; a hub id, or a folder without the file, is a Stable Diffusion model by its name."""
    file = Path(location) / _FILE
    if file.is_file():
        return ModelFacts.model_validate_json(file.read_text())
    return ModelFacts(name=location.rstrip("/").rsplit("/", 1)[-1].lower())
