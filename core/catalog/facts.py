"""What a model says of itself: ``lockstep.json`` beside its weights, or what its family leaves to assume."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.catalog.pipeline import CONFIGURATIONS, describe, read_json

_FILE = "lockstep.json"
_PROMPTS = "prompts.txt"
READ = (*CONFIGURATIONS, _FILE, _PROMPTS)  # what `read_facts` reads of a folder

Guidance = Literal["classifier_free", "embedded", "none"]
"""What a model does with guidance: draw twice and mix, read it in its network, or nothing, as it is built in."""

_GATE_BIAS = {"local": 0.7, "global": 0.5, "trained": 0.7}


class StudentFacts(BaseModel):
    """How a student draws: one step at each of its timesteps, without guidance."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    teacher: str
    timesteps: tuple[int, ...] = Field(min_length=1)


class ConceptSpace(BaseModel):
    """Where concepts of a base model live: a concept of another encoder, metric or U-Net means nothing there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    encoder: str  # fingerprint of the text encoder's weights and vocabulary
    covariance: str  # SHA-256 of the metric
    layer_widths: tuple[int, ...]  # of the cross-attention layers, in the U-Net's order


class ModelFacts(BaseModel):
    """Facts the product uses: defaults of a request, and what can be asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    family: str = "stable-diffusion"
    size: int = 512  # pixels a side; others must be multiples of `size_multiple`, from `min_size` to `max_size`
    size_multiple: int = 64
    min_size: int = 1
    max_size: int = 1024
    default_steps: int = 50
    max_steps: int = 200
    default_guidance: float = 6.0
    guidance: Guidance = "classifier_free"
    default_key_lock: str = "local"
    gate_bias: dict[str, float] = Field(default_factory=lambda: dict(_GATE_BIAS))  # by key lock
    gate_temperature: float = 0.15
    superclasses: tuple[str, ...] = ()  # empty: any word
    prompts: int = 0  # how many prompts it brings along to be distilled with
    default_pairs: int = 10_000  # teacher pairs of a distillation
    perfusion: dict[str, Any] = Field(default_factory=dict)  # training settings, which the engine reads by itself
    distillation: dict[str, Any] = Field(default_factory=dict)  # the same for distillations
    concept_space: ConceptSpace | None = None  # None: not known here, so only workers can tell what fits
    student: StudentFacts | None = None

    @field_validator("gate_bias")
    @classmethod
    def _complete(cls, bias: dict[str, float]) -> dict[str, float]:
        """A model may say less than every lock's."""
        return _GATE_BIAS | bias

    @property
    def least_size(self) -> int:
        """The shortest side, in pixels, that a request may ask for."""
        return self.size_multiple * -(-self.min_size // self.size_multiple)

    @property
    def takes_guidance(self) -> bool:
        """Whether a request may choose the guidance: not of a student, nor of another model that has it built in."""
        return self.student is None and self.guidance != "none"

    def as_student(self, name: str, student: StudentFacts) -> ModelFacts:
        """The facts of a student of this model: everything but how it draws is its teacher's."""
        own = {
            "name": name,
            "default_steps": len(student.timesteps),
            "max_steps": len(student.timesteps),
            "default_guidance": 1.0,
            "guidance": "none",
            "prompts": 0,
            "distillation": {},
            "student": student,
        }
        return self.model_copy(update=own)


def read_facts(location: str, folder: Path | None = None) -> ModelFacts:
    """The facts of a model folder, with what its pipeline tells of those it leaves out.

    ``folder`` is where the files of a hub id lie. A model that has no name for itself goes by its location's last
    part. A student's folder says how its teacher draws, too. Raises ValueError for facts that are none.
    """
    folder = folder or Path(location)
    said = read_json(folder / _FILE)
    assumed = {"name": location.rstrip("/").rsplit("/", 1)[-1].lower()}
    told = describe(folder, guidance=said.get("guidance"))
    facts = ModelFacts.model_validate({**assumed, **told, **said, "prompts": _count_prompts(folder / _PROMPTS)})
    _check_sizes(facts, least=told.get("min_size", facts.min_size), most=told.get("max_size", facts.max_size))
    return facts if facts.student is None else facts.as_student(facts.name, facts.student)


def _check_sizes(facts: ModelFacts, *, least: int, most: int) -> None:
    """Raise ValueError where the model's own size is none of its sizes, or it promises others than can be drawn."""
    if facts.size % facts.size_multiple or not facts.min_size <= facts.size <= facts.max_size:
        raise ValueError(f"{facts.name}: its size of {facts.size} is none of the sizes it says it draws")
    if facts.min_size < least or facts.max_size > most:
        raise ValueError(f"{facts.name}: only sides from {least} to {most} pixels can be drawn")


def _count_prompts(file: Path) -> int:
    return sum(bool(line.strip()) for line in file.read_text().splitlines()) if file.is_file() else 0
