"""What a job is asked to do: written when it is accepted, read back by the worker, never changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

KeyLock = Literal["global", "local"]


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingParams(_Params):
    """Learn one concept from pictures."""

    kind: Literal["training"] = "training"
    concept_id: str
    concept_name: str
    superclass: str
    model_id: str
    file_ids: tuple[str, ...] = Field(min_length=1)
    key_lock: KeyLock
    steps: int | None = Field(default=None, ge=1, le=5000)  # null: the model's own default
    seed: int
    flip: bool = True


class ConceptUse(_Params):
    """A concept as one generation uses it; the version is fixed when the job is accepted."""

    concept_id: str
    version: int
    file_id: str
    name: str  # its placeholder in the prompt, without the brackets
    key_lock: KeyLock
    gate_bias: float = Field(ge=0, le=1)
    gate_temperature: float = Field(gt=0, le=1)


class GenerationParams(_Params):
    """Draw ``n`` pictures of one prompt; picture ``i`` has seed ``seed + i``."""

    kind: Literal["generation"] = "generation"
    prompt: str
    negative_prompt: str = ""
    concepts: tuple[ConceptUse, ...] = ()
    model_id: str
    steps: int = Field(ge=1, le=200)
    guidance: float = Field(ge=0, le=50)
    n: int = Field(ge=1, le=16)
    seed: int = Field(ge=0, lt=2**31)
    width: int = Field(ge=8)
    height: int = Field(ge=8)


JobParams = Annotated[TrainingParams | GenerationParams, Field(discriminator="kind")]


def lane(params: TrainingParams | GenerationParams, job_id: str) -> str:
    """The key of jobs that can share a batch: model, size and steps. A training shares with none."""
    if isinstance(params, TrainingParams):
        return f"training:{job_id}"
    return f"generation:{params.model_id}:{params.width}x{params.height}:{params.steps}"


# GPU-milliseconds by which a claim charges a tenant before the true cost is known; only ratios matter.
_TRAINING_STEP_MS = 200
_DRAWING_STEP_MS = 20
_DEFAULT_TRAINING_STEPS = 400


def cost_ms(params: TrainingParams | GenerationParams) -> int:
    """The estimated cost of a job in GPU-milliseconds."""
    if isinstance(params, TrainingParams):
        return (params.steps or _DEFAULT_TRAINING_STEPS) * _TRAINING_STEP_MS
    return params.n * params.steps * _DRAWING_STEP_MS
