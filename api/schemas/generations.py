"""Generations on the wire, as they are shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.common import Resource
from api.schemas.job import JobBase, job_members
from api.urls import Urls
from core.jobs import models
from core.jobs.params import GenerationParams, KeyLock, PictureFormat, Quality, Sweep


class UsedConcept(Resource):
    """A concept as the generation uses it."""

    id: str
    as_: str = Field(serialization_alias="as", description="Its placeholder in the prompt.")
    version: int
    key_lock: KeyLock
    gate_bias: float
    gate_temperature: float


class UsedSweep(Resource):
    """The dial that the pictures of a sweep differ by, and its values; the other one is null."""

    concept: str = Field(description="Its placeholder in the prompt.")
    gate_bias: list[float] | None = None
    gate_temperature: list[float] | None = None

    @classmethod
    def of(cls, sweep: Sweep) -> UsedSweep:
        """The sweep as it is shown."""
        return cls.model_validate({"concept": sweep.concept, sweep.dial: list(sweep.values)})


class GenerationInput(Resource):
    """What was asked for, with everything that was left open filled in."""

    prompt: str
    negative_prompt: str
    concepts: list[UsedConcept]
    model: str
    steps: int
    guidance: float
    n: int
    seed: int
    size: str = Field(examples=["64x64"])
    sweep: UsedSweep | None = Field(description="Null unless one was asked for.")
    format: PictureFormat
    quality: Quality | None = Field(description="Null where every pixel is exact.")
    metadata: bool


class SafetyVerdict(Resource):
    """What the safety checker says of a picture."""

    score: float = Field(description="From 0, certainly safe, to 1, certainly not.")
    unsafe: bool = Field(description="Whether the score reaches the operator's threshold.")


class _Drawn(Resource):
    """A picture that was drawn, whether it is shown or not."""

    seed: int = Field(description="The seed that draws this one again.")
    width: int
    height: int
    gate_bias: float | None = Field(default=None, description="In a sweep of it: the value at which it was drawn.")
    gate_temperature: float | None = Field(default=None, description="In a sweep of it: the same.")
    safety: SafetyVerdict | None = Field(default=None, description="Null unless your pictures are judged.")


class GeneratedImage(_Drawn):
    """One picture."""

    file_id: str
    media_type: str = Field(examples=["image/png"])
    content_url: str = Field(description="Where its bytes are, for the same API key.")


class WithheldImage(_Drawn):
    """A picture that was drawn and is kept from everybody."""

    code: str = Field(description="Why; stable.", examples=["safety-blocked"])


class GenerationResult(Resource):
    """What was drawn."""

    images: list[GeneratedImage]
    withheld: list[WithheldImage] = Field(description="Pictures that you asked for and do not get.")


class GenerationJob(JobBase):
    """A job that draws pictures of one prompt."""

    object: Literal["generation"] = "generation"
    kind: Literal["generation"] = "generation"
    params: GenerationInput
    reproduces: str | None = Field(description="The job whose pictures it draws again.")
    draft: bool = Field(description="Whether it is a quick look of the studio, whose picture the next one replaces.")
    result: GenerationResult | None = Field(description="Set once it has succeeded.")

    @classmethod
    def of(cls, job: models.Job, model_name: str, urls: Urls) -> GenerationJob:
        """The job as it is shown."""
        params = GenerationParams.model_validate(job.params)
        shown = GenerationInput(
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            concepts=[
                UsedConcept(
                    id=use.concept_id,
                    as_=use.name,
                    version=use.version,
                    key_lock=use.key_lock,
                    gate_bias=use.gate_bias,
                    gate_temperature=use.gate_temperature,
                )
                for use in params.concepts
            ],
            model=model_name,
            steps=params.steps,
            guidance=params.guidance,
            n=params.n,
            seed=params.seed,
            size=f"{params.width}x{params.height}",
            sweep=None if params.sweep is None else UsedSweep.of(params.sweep),
            **params.file.model_dump(),
        )
        result = None
        if job.result is not None:
            media_type = params.file.media_type
            images = [
                {**image, "media_type": media_type, "content_url": urls.file_content(image["file_id"])}
                for image in job.result["images"]
            ]
            result = GenerationResult.model_validate({"images": images, "withheld": job.result.get("withheld", [])})
        own = {"params": shown, "reproduces": params.reproduces, "draft": params.draft, "result": result}
        return cls.model_validate({**job_members(job, urls), **own})
