"""Distillations on the wire, and the jobs that draw pairs for them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from api.schemas.common import Reference, Resource, Text
from api.schemas.job import JobBase, QuotableRequest, job_members
from api.urls import Urls
from core.concepts.names import ConceptName
from core.jobs import models
from core.jobs.distilling import DistillationRequest
from core.jobs.params import DistillationParams, TeacherPairsParams

_Prompt = Annotated[Text, Field(min_length=1, max_length=2000)]
_Timestep = Annotated[int, Field(ge=0, le=999)]

# What a request calls the engine's settings.
_SETTINGS = {
    "steps": ("steps",),
    "batch_size": ("batch_size",),
    "learning_rate": ("lr", "critic_lr"),
    "critic_ratio": ("critic_ratio",),
    "guidance": ("guidance",),
    "key_locked": ("key_locked",),
    "regression_weight": ("regression_weight",),
    "timesteps": ("student_timesteps",),
}


class CreateDistillation(QuotableRequest):
    """A student to be distilled from a base model; what is left out is the teacher's own, or the published value."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "swift", "teacher": "storybook", "steps": 2000, "pairs": 4000}]}
    )

    name: ConceptName = Field(description="How the student will be called; pictures are drawn with `model: <name>`.")
    teacher: Reference | None = Field(
        default=None, description="Name or id of a base model; by default the first one registered."
    )
    prompts: list[_Prompt] = Field(
        default=[], max_length=1000, description="What to distil with; by default the prompts that the teacher brings."
    )
    pairs: int | None = Field(
        default=None,
        ge=0,
        le=50_000,
        description="Noises whose picture by the teacher is learned by heart; 0 for none. Drawn by jobs of their own.",
    )
    pair_steps: int | None = Field(default=None, ge=1, le=200, description="Steps of the teacher for each of them.")
    steps: int | None = Field(default=None, ge=1, le=1_000_000, description="Updates of the student.")
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="Over all GPUs.")
    learning_rate: float | None = Field(default=None, gt=0, le=0.1, description="Of the student and the fake score.")
    critic_ratio: int | None = Field(
        default=None, ge=1, le=100, description="Updates of the fake score for each of the student."
    )
    guidance: float | None = Field(
        default=None, ge=0, le=50, description="The teacher's, which becomes the student's for good."
    )
    key_locked: bool | None = Field(
        default=None, description="Whether cross-attention keys and values stay the teacher's, as concepts need."
    )
    regression_weight: float | None = Field(default=None, ge=0, le=1000, description="Of the loss on the pairs.")
    timesteps: list[_Timestep] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="Where the student draws, falling: one step each. Several leave the pairs out.",
        examples=[[999]],
    )
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="By default a random one.")

    @field_validator("timesteps")
    @classmethod
    def _fall(cls, timesteps: list[int] | None) -> list[int] | None:
        if timesteps and any(here <= there for here, there in pairwise(timesteps)):
            raise ValueError("timesteps must fall")
        return timesteps

    def as_request(self) -> DistillationRequest:
        """The request in the words of the use case."""
        given = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        return DistillationRequest(
            name=self.name,
            teacher=self.teacher,
            prompts=tuple(self.prompts),
            pairs=self.pairs,
            pair_steps=self.pair_steps,
            settings={own: value for name, value in given.items() for own in _SETTINGS[name]},
            seed=self.seed,
        )


class DistillationInput(Resource):
    """What was asked for, with everything that was left open filled in but for the teacher's own settings."""

    name: str
    model_id: str = Field(description="The student's id.")
    teacher: str
    prompts: list[str] = Field(description="Empty: the teacher's own.")
    pairs: int
    pair_steps: int | None = Field(description="Null: no pairs.")
    settings: dict[str, Any] = Field(description="Where they differ from the teacher's own.")
    seed: int


class DistillationResult(Resource):
    """The student."""

    model_id: str
    model: str = Field(description="Its name: draw with it as `model`.")
    file_id: str
    size_bytes: int
    timesteps: list[int] = Field(description="Where it draws: one step each.")
    metrics: dict[str, Any]
    content_url: str = Field(description="Where the student's file (safetensors) is.")


class DistillationJob(JobBase):
    """A job that distils a student from a base model."""

    object: Literal["distillation"] = "distillation"
    kind: Literal["distillation"] = "distillation"
    params: DistillationInput
    result: DistillationResult | None = Field(description="Set once it has succeeded.")

    @classmethod
    def of(cls, job: models.Job, model_name: str, urls: Urls) -> DistillationJob:
        """The job as it is shown."""
        params = DistillationParams.model_validate(job.params)
        shown = DistillationInput(
            name=params.student_name,
            model_id=params.student_id,
            teacher=model_name,
            prompts=list(params.prompts),
            pairs=params.wanted.count if params.wanted else 0,
            pair_steps=params.wanted.steps if params.wanted else None,
            settings=params.settings,
            seed=params.seed,
        )
        result = job.result and {**job.result, "content_url": urls.file_content(job.result["file_id"])}
        return cls.model_validate({**job_members(job, urls), "params": shown, "result": result})


class TeacherPairsInput(Resource):
    """Which pairs to draw."""

    distillation_id: str
    teacher: str
    shard: int
    count: int
    steps: int


class TeacherPairsResult(Resource):
    """The pairs."""

    file_id: str
    shard: int
    count: int


class TeacherPairsJob(JobBase):
    """A job that draws one shard of the pairs a distillation waits for."""

    object: Literal["teacher_pairs"] = "teacher_pairs"
    kind: Literal["teacher_pairs"] = "teacher_pairs"
    params: TeacherPairsInput
    result: TeacherPairsResult | None = Field(description="Set once it has succeeded.")

    @classmethod
    def of(cls, job: models.Job, model_name: str, urls: Urls) -> TeacherPairsJob:
        """The job as it is shown."""
        params = TeacherPairsParams.model_validate(job.params)
        shown = TeacherPairsInput(
            distillation_id=params.distillation_id,
            teacher=model_name,
            shard=params.shard,
            count=params.count,
            steps=params.steps,
        )
        return cls.model_validate({**job_members(job, urls), "params": shown, "result": job.result})
