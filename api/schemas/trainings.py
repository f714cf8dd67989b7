"""Trainings on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import ConceptReference, Reference, Resource
from api.schemas.job import JobBase, QuotableRequest, job_members
from api.urls import Urls
from core.concepts.names import Superclass
from core.jobs import models
from core.jobs.params import KeyLock, TrainingParams
from core.jobs.requests import TrainingRequest


class CreateTraining(QuotableRequest):
    """A concept to be learned from pictures."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"concept": "tom", "superclass": "cat", "images": ["file_01kaj0c5pmq2v8y4dn6rx3zwte"]}]
        }
    )

    concept: ConceptReference = Field(description="Name or id of a concept; a new name makes a new concept.")
    superclass: Superclass | None = Field(default=None, description="What kind of thing it is; needed for a new name.")
    images: list[Reference] = Field(default=[], description="Ids of 1 to 10 files that show the thing.")
    continue_from: int | None = Field(
        default=None, ge=1, description="Go on from this version: its pictures are learned from as well."
    )
    base_model: Reference | None = Field(default=None, description="Name or id; by default the first one registered.")
    key_lock: KeyLock | None = Field(default=None, description="What keeps the concept within its superclass.")
    steps: int | None = Field(default=None, ge=1, le=5000, description="By default the model's own number.")
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="By default a random one.")
    flip: bool = Field(default=True, description="Whether mirrored pictures show the thing as well.")

    def as_request(self) -> TrainingRequest:
        """The request in the words of the use case."""
        return TrainingRequest(
            concept=self.concept,
            superclass=self.superclass,
            file_ids=tuple(self.images),
            model=self.base_model,
            key_lock=self.key_lock,
            steps=self.steps,
            seed=self.seed,
            flip=self.flip,
            continue_from=self.continue_from,
        )


class TrainingInput(Resource):
    """What was asked for, with everything that was left open filled in."""

    concept: str = Field(description="The concept's name.")
    concept_id: str
    superclass: str
    images: list[str]
    base_model: str
    key_lock: KeyLock
    steps: int | None = Field(description="Null: the model's own number.")
    seed: int
    flip: bool
    continue_from: int | None = Field(description="The version it went on from, whose pictures are among `images`.")


class TrainingResult(Resource):
    """What was learned."""

    concept_id: str
    version: int
    file_id: str
    size_bytes: int
    metrics: dict[str, Any] = Field(description="How well it was learned.")
    content_url: str = Field(description="Where the concept file (safetensors) is.")


class TrainingJob(JobBase):
    """A job that learns one concept from pictures."""

    object: Literal["training"] = "training"
    kind: Literal["training"] = "training"
    params: TrainingInput
    result: TrainingResult | None = Field(description="Set once it has succeeded.")

    @classmethod
    def of(cls, job: models.Job, model_name: str, urls: Urls) -> TrainingJob:
        """The job as it is shown."""
        params = TrainingParams.model_validate(job.params)
        shown = TrainingInput(
            concept=params.concept_name,
            concept_id=params.concept_id,
            superclass=params.superclass,
            images=list(params.file_ids),
            base_model=model_name,
            key_lock=params.key_lock,
            steps=params.steps,
            seed=params.seed,
            flip=params.flip,
            continue_from=None if params.continued is None else params.continued.version,
        )
        result = job.result and {**job.result, "content_url": urls.file_content(job.result["file_id"])}
        return cls.model_validate({**job_members(job, urls), "params": shown, "result": result})
