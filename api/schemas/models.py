"""Base models on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.common import Resource, Time
from core.catalog import models
from core.catalog.selection import facts_of


class ModelDefaults(Resource):
    """What a request gets that does not say otherwise."""

    steps: int
    guidance: float
    key_lock: str
    gate_bias: dict[str, float] = Field(description="By key lock.")
    gate_temperature: float
    training: dict[str, Any] = Field(description="Training settings in which this model has its own way.")


class Model(Resource):
    """A base model: what concepts are learned on and pictures are drawn with."""

    id: str = Field(examples=["mdl_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["model"] = "model"
    name: str = Field(examples=["storybook"])
    kind: Literal["base", "student"]
    family: str = Field(examples=["stable-diffusion"])
    size: int = Field(description="Pixels a side, unless a request says otherwise.")
    size_multiple: int = Field(description="Other sides must be multiples of this,")
    max_size: int = Field(description="and at most this.")
    superclasses: list[str] = Field(description="Words it was made to know; empty: any word.")
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
        )
        return cls.model_validate(
            {
                "id": model.id,
                "name": model.name,
                "kind": model.kind,
                "family": model.family,
                "size": facts.size,
                "size_multiple": facts.size_multiple,
                "max_size": facts.max_size,
                "superclasses": list(facts.superclasses),
                "defaults": defaults,
                "created_at": model.created_at,
            }
        )
