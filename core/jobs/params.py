"""What a job is asked to do: written when it is accepted, read back by the worker, never changed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PICTURES = 16  # of one generation

KeyLock = Literal["global", "local", "trained"]
Dial = Literal["gate_bias", "gate_temperature"]
GateBias = Annotated[float, Field(ge=0, le=1)]
GateTemperature = Annotated[float, Field(gt=0, le=1)]
PictureFormat = Literal["png", "webp"]
Quality = Annotated[int, Field(ge=1, le=100)]


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ContinuedVersion(_Params):
    """What a training starts from, in place of the superclass: a version of the concept."""

    version: int
    file_id: str


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
    continued: ContinuedVersion | None = None


class ConceptUse(_Params):
    """A concept as one generation uses it; the version is fixed when the job is accepted."""

    concept_id: str
    version: int
    file_id: str
    name: str  # its placeholder in the prompt, without the brackets
    key_lock: KeyLock
    gate_bias: GateBias
    gate_temperature: GateTemperature
    owner_id: str | None = None  # the tenant that granted it, where it is not the job's own


class Sweep(_Params):
    """One dial of one concept, turned to another value for each picture."""

    concept: str  # its placeholder
    dial: Dial
    values: tuple[float, ...] = Field(min_length=2, max_length=MAX_PICTURES)


class PictureFile(_Params):
    """How a picture is kept as a file."""

    format: PictureFormat = "png"
    quality: Quality | None = None  # of a WebP that may lose detail; null: exact, as a PNG always is
    metadata: bool = True  # whether the file says how it was drawn

    @property
    def media_type(self) -> str:
        """As HTTP names it."""
        return f"image/{self.format}"


class GenerationParams(_Params):
    """Draw ``n`` pictures of one prompt; picture ``i`` has seed ``seed + i``.

    In a sweep all have the same seed, and picture ``i`` the sweep's ``i``-th value in place of its concept's own.
    """

    kind: Literal["generation"] = "generation"
    prompt: str
    negative_prompt: str = ""
    concepts: tuple[ConceptUse, ...] = ()
    model_id: str
    steps: int = Field(ge=1, le=200)
    guidance: float = Field(ge=0, le=50)
    n: int = Field(ge=1, le=MAX_PICTURES)
    seed: int = Field(ge=0, lt=2**31)
    width: int = Field(ge=8)
    height: int = Field(ge=8)
    sweep: Sweep | None = None
    file: PictureFile = PictureFile()
    reproduces: str | None = None  # the job whose pictures these are once more
    draft: bool = False  # drawn while somebody turns a dial, to be thrown away for the next one

    @model_validator(mode="after")
    def _fits_its_sweep(self) -> Self:
        if self.sweep is None:
            return self
        if self.n != len(self.sweep.values):
            raise ValueError("a sweep draws one picture at each value")
        if self.sweep.concept not in {use.name for use in self.concepts}:
            raise ValueError("a sweep is over one of the concepts")
        return self

    def seed_of(self, picture: int) -> int:
        """The seed of a picture, counted from 0."""
        return self.seed if self.sweep is not None else self.seed + picture

    def swept(self, picture: int) -> dict[str, float]:
        """What a picture differs by from the others of its sweep; nothing where there is none."""
        return {} if self.sweep is None else {self.sweep.dial: self.sweep.values[picture]}

    def concepts_of(self, picture: int) -> tuple[ConceptUse, ...]:
        """The concepts as a picture uses them."""
        if self.sweep is None:
            return self.concepts
        name, turned = self.sweep.concept, self.swept(picture)
        return tuple(use.model_copy(update=turned) if use.name == name else use for use in self.concepts)

    def alone(self, picture: int) -> GenerationParams:
        """The parameters that draw this one picture, counted from 0, and no other."""
        own = {"n": 1, "seed": self.seed_of(picture), "concepts": self.concepts_of(picture), "sweep": None}
        return self.model_copy(update=own)


class PairsWanted(_Params):
    """Noise and what the teacher makes of it, for a student to learn from: so many, drawn by as many jobs as shards."""

    count: int = Field(ge=1)
    steps: int = Field(ge=1, le=200)  # of the teacher for each
    shards: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**31)

    def in_shard(self, shard: int) -> int:
        """How many pairs a shard has; shards differ by one at most."""
        return (shard + 1) * self.count // self.shards - shard * self.count // self.shards


class DistillationParams(_Params):
    """Distil a student that draws in one step, or a few, from a base model: its teacher."""

    kind: Literal["distillation"] = "distillation"
    model_id: str  # the teacher
    student_id: str
    student_name: str
    prompts: tuple[str, ...] = ()  # none: the teacher's own
    settings: dict[str, Any] = Field(default_factory=dict)  # where they differ from the teacher's own
    wanted: PairsWanted | None  # null: nothing is learned from pairs
    seed: int


class TeacherPairsParams(_Params):
    """Draw one shard of the pairs that a distillation waits for; what they are is said there."""

    kind: Literal["teacher_pairs"] = "teacher_pairs"
    distillation_id: str
    model_id: str
    shard: int = Field(ge=0)
    count: int = Field(ge=1)
    steps: int = Field(ge=1)


AnyParams = TrainingParams | GenerationParams | DistillationParams | TeacherPairsParams
JobParams = Annotated[AnyParams, Field(discriminator="kind")]


def lane(params: AnyParams, job_id: str) -> str:
    """The key of jobs that can share a batch: generations of one model, size and steps, trainings of one model."""
    match params:
        case GenerationParams():
            return f"generation:{params.model_id}:{params.width}x{params.height}:{params.steps}"
        case TrainingParams():
            return f"training:{params.model_id}"
        case _:
            return f"{params.kind}:{job_id}"


def is_training_lane(lane: str) -> bool:
    """Whether the jobs of this lane are trainings that may form a cohort."""
    return lane.startswith("training:")


# GPU-milliseconds by which a claim charges a tenant before the true cost is known; only ratios matter.
_TRAINING_STEP_MS = 200
_DRAWING_STEP_MS = 20
_DISTILLATION_STEP_MS = 1000
_DEFAULT_TRAINING_STEPS = 400
_DEFAULT_DISTILLATION_STEPS = 2000


def cost_ms(params: AnyParams) -> int:
    """The estimated cost of a job in GPU-milliseconds."""
    match params:
        case TrainingParams():
            return (params.steps or _DEFAULT_TRAINING_STEPS) * _TRAINING_STEP_MS
        case GenerationParams():
            return params.n * params.steps * _DRAWING_STEP_MS
        case TeacherPairsParams():
            return params.count * params.steps * _DRAWING_STEP_MS
        case DistillationParams():
            return int(params.settings.get("steps", _DEFAULT_DISTILLATION_STEPS)) * _DISTILLATION_STEP_MS
