"""What a generation is asked to draw, on the wire."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from api.schemas.common import Reference, RequestBody, Text
from api.schemas.job import JobRequest, QuotableRequest
from core.concepts.names import ConceptName, UsableName
from core.jobs.params import (
    MAX_PICTURES,
    GateBias,
    GateTemperature,
    KeyLock,
    PictureFile,
    PictureFormat,
    Quality,
    Sweep,
)
from core.jobs.requests import ConceptChoice, GenerationRequest


def _parsed_size(value: object) -> object:
    """``"512x768"`` or ``512`` as width and height."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("give WIDTHxHEIGHT as in '512x768', or one number for a square")
    return int(match[1]), int(match[2])


Size = Annotated[
    tuple[int, int],
    BeforeValidator(_parsed_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+x\d+$"}, {"type": "integer"}]}),
]


class ChosenConcept(RequestBody):
    """A concept the prompt names, and how strongly it takes part."""

    id: Reference | None = Field(default=None, description="The concept's id; give this or `name`.")
    name: UsableName | None = Field(
        default=None,
        description="The concept's name; give this or `id`. Of one that another tenant granted: `<tenant>/<name>`.",
    )
    as_: ConceptName | None = Field(
        default=None, alias="as", description="Its placeholder in this prompt, if it is not to be its name."
    )
    version: int | None = Field(default=None, ge=1, description="By default the latest.")
    key_lock: KeyLock | None = Field(default=None, description="By default the one it was trained with.")
    gate_bias: GateBias | None = Field(
        default=None,
        description="Higher: closer to the text; lower: closer to the pictures. By default what the version recommends "
        "for its key lock, or the model's own.",
    )
    gate_temperature: GateTemperature | None = Field(
        default=None, description="Lower: the gate opens more abruptly at its bias."
    )

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if (self.id is None) == (self.name is None):
            raise ValueError("give either id or name")
        return self

    def as_choice(self) -> ConceptChoice:
        """The choice in the words of the use case."""
        return ConceptChoice(
            concept=self.id or self.name or "",
            placeholder=self.as_,
            version=self.version,
            key_lock=self.key_lock,
            gate_bias=self.gate_bias,
            gate_temperature=self.gate_temperature,
        )


class _Drawing(QuotableRequest):
    """What is drawn, however many pictures of it."""

    prompt: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="What to draw. `<tom>` is your concept `tom`, or the one listed `as` tom."
    )
    negative_prompt: Annotated[Text, Field(max_length=2000)] = Field(default="", description="What to keep away from.")
    concepts: list[ChosenConcept] = Field(
        default=[], max_length=8, description="Only needed to rename a concept, or to change how it takes part."
    )
    model: Reference | None = Field(default=None, description="Name or id; by default that of the concepts.")
    steps: int | None = Field(
        default=None, ge=1, le=200, description="Denoising steps; by default the model's own number."
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="How closely to follow the prompt: 1 is without guidance, 0 as without the prompt. By default "
        "the model's own number; of a model that takes none, 0 and 1 both ask for none.",
    )
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="By default a random one.")
    size: Size | None = Field(default=None, description="`WIDTHxHEIGHT` or one number, in pixels.", examples=["64x64"])
    format: PictureFormat = Field(default="png", description="What the pictures are stored as.")
    quality: Quality | None = Field(
        default=None,
        description="For `webp`: lower makes smaller files of less detail. By default every pixel is exact.",
    )
    metadata: bool = Field(
        default=True, description="Whether each file says how it was drawn: the prompt, the seed, the model and so on."
    )

    @field_validator("quality")
    @classmethod
    def _of_webp(cls, quality: int | None, info: ValidationInfo) -> int | None:
        if quality is not None and info.data.get("format") == "png":
            raise ValueError("only webp has a quality; a png picture is always exact")
        return quality

    def as_request(self) -> GenerationRequest:
        """The request in the words of the use case."""
        return GenerationRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            concepts=tuple(concept.as_choice() for concept in self.concepts),
            model=self.model,
            steps=self.steps,
            guidance=self.guidance,
            seed=self.seed,
            size=self.size,
            file=PictureFile(format=self.format, quality=self.quality, metadata=self.metadata),
        )


class CreateGeneration(_Drawing):
    """Pictures to be drawn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "<tom> on the beach"},
                {
                    "prompt": "<tom> and <her>",
                    "concepts": [{"name": "tom", "gate_bias": 0.6}, {"name": "ann", "as": "her"}],
                },
            ]
        }
    )

    n: int = Field(default=1, ge=1, le=MAX_PICTURES, description="How many pictures; picture i has seed `seed + i`.")

    def as_request(self) -> GenerationRequest:
        """The request in the words of the use case."""
        return replace(super().as_request(), n=self.n)


class ChosenSweep(RequestBody):
    """A concept of the prompt, and the values of one of its dials: `gate_bias` or `gate_temperature`."""

    concept: ConceptName = Field(description="Its placeholder in the prompt, without the brackets.")
    gate_bias: list[GateBias] | None = Field(
        default=None, min_length=2, max_length=MAX_PICTURES, description="One picture is drawn at each; all differ."
    )
    gate_temperature: list[GateTemperature] | None = Field(
        default=None, min_length=2, max_length=MAX_PICTURES, description="The same, of the other dial."
    )

    @field_validator("gate_bias", "gate_temperature")
    @classmethod
    def _differ(cls, values: list[float] | None) -> list[float] | None:
        if values and len(set(values)) < len(values):
            raise ValueError("the values must differ")
        return values

    @model_validator(mode="after")
    def _of_one_dial(self) -> Self:
        if (self.gate_bias is None) == (self.gate_temperature is None):
            raise ValueError("give either gate_bias or gate_temperature")
        return self

    def as_sweep(self) -> Sweep:
        """The sweep in the words of the use case."""
        if self.gate_bias is not None:
            return Sweep(concept=self.concept, dial="gate_bias", values=tuple(self.gate_bias))
        return Sweep(concept=self.concept, dial="gate_temperature", values=tuple(self.gate_temperature or ()))


class CreateSweep(_Drawing):
    """One picture at each of several values of a concept's dial, all with one seed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "<tom> on the beach",
                    "sweep": {"concept": "tom", "gate_bias": [0.4, 0.5, 0.6, 0.65, 0.7, 0.75]},
                    "seed": 7,
                }
            ]
        }
    )

    sweep: ChosenSweep = Field(description="Which dial to turn, and to which values.")

    def as_request(self) -> GenerationRequest:
        """The request in the words of the use case."""
        sweep = self.sweep.as_sweep()
        return replace(super().as_request(), n=len(sweep.values), sweep=sweep)


class ReproduceGeneration(JobRequest):
    """Nothing: the pictures are drawn as they were. To change anything, make another generation."""


class ReproducePicture(JobRequest):
    """A picture to be drawn again."""

    file: Reference = Field(description="The picture's file id.", examples=["file_01kaj0c5pmq2v8y4dn6rx3zwte"])
