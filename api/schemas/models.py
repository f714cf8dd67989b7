"""Base models and students on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.common import Resource, Time
from core.catalog import models
from core.catalog.facts import Guidance
from core.catalog.selection import facts_of


class ModelDefaults(Resource):
    """What a request gets that does not say otherwise."""

    steps: int
    guidance: float
    key_lock: str
    gate_bias: dict[str, float] = Field(description="By key lock.")
    gate_temperature: float
    training: dict[str, Any] = Field(description="Training settings in which this model has its own way.")
    distillation: dict[str, Any] = Field(description="Distillation settings in which this model has its own way.")


class Model(Resource):
    """A model that pictures are drawn with: a base model, which concepts are learned on, or a student of one."""

    id: str = Field(examples=["mdl_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["model"] = "model"
    name: str = Field(examples=["storybook"])
    kind: Literal["base", "student"]
    ready: bool = Field(description="False for a student until a distillation of it has succeeded.")
    teacher_id: str | None = Field(description="The base model that a student was distilled from.")
    timesteps: list[int] | None = Field(description="Where a student draws: one step each, without guidance.")
    is_own: bool = Field(description="Whether it is yours alone, and not everybody's.")
    file_id: str | None = Field(description="The student's file, where a distillation of yours made it.")
    family: str = Field(examples=["stable-diffusion"])
    size: int = Field(description="Pixels a side, unless a request says otherwise.")
    size_multiple: int = Field(description="Other sides must be multiples of this,")
    min_size: int = Field(description="at least this,")
    max_size: int = Field(description="and at most this.")
    max_steps: int = Field(description="Most steps that a picture may be drawn in.")
    guidance: Guidance = Field(
        description="`classifier_free`: it takes guidance and negative prompts; `embedded`: it reads its guidance and "
        "takes no negative prompt; `none`: it takes neither, as a student."
    )
    superclasses: list[str] = Field(description="Words it was made to know; empty: any word.")
    prompts: int = Field(description="How many prompts it brings along to be distilled with.")
    defaults: ModelDefaults
    created_at: Time

    @classmethod
    def of(cls, model: models.Model) -> Model:
        """The model as it is shown."""
        facts = facts_of(model)
        defaults = ModelDefaults(
            steps=facts.default_steps,
            guidance=facts.default_guidance,
            key_lock=facts.default_key_lock,
            gate_bias=facts.gate_bias,
            gate_temperature=facts.gate_temperature,
            training=facts.perfusion,
            distillation=facts.distillation,
        )
        return cls.model_validate(
            {
                "id": model.id,
                "name": model.name,
                "kind": model.kind,
                "ready": model.is_ready,
                "teacher_id": model.teacher_id,
                "timesteps": facts.student and list(facts.student.timesteps),
                "is_own": model.tenant_id is not None,
                "file_id": model.file_id,
                "family": model.family,
                "size": facts.size,
                "size_multiple": facts.size_multiple,
                "min_size": facts.least_size,
                "max_size": facts.max_size,
                "max_steps": facts.max_steps,
                "guidance": facts.guidance if facts.takes_guidance else "none",
                "superclasses": list(facts.superclasses),
                "prompts": facts.prompts,
                "defaults": defaults,
                "created_at": model.created_at,
            }
        )
