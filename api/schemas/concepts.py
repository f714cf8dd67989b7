"""Concepts on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import ConceptReference, Reference, RequestBody, Resource, Time
from api.urls import Urls
from core.concepts import models
from core.concepts.importing import ImportRequest
from core.concepts.models import ConceptVersion
from core.concepts.names import ConceptName, Superclass
from core.files.models import File


class CreateConcept(RequestBody):
    """A concept to be learned later."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "tom", "superclass": "cat"}]})

    name: ConceptName = Field(description="Its placeholder in prompts: lower-case letters, digits, hyphens.")
    superclass: Superclass = Field(description="What kind of thing it is, in a word or two.")
    base_model: Reference | None = Field(default=None, description="Name or id; by default the first one registered.")


class ImportConcept(RequestBody):
    """A concept file that another training made, here or elsewhere."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"file": "file_01kaj0c5pmq2v8y4dn6rx3zwte", "concept": "tom"}]}
    )

    file: Reference = Field(description="Id of a file that was uploaded with the purpose `concept_upload`.")
    concept: ConceptReference = Field(description="Name or id. A new name makes a new concept.")
    base_model: Reference | None = Field(
        default=None, description="Name or id; by default the concept's own, or the one that the file fits."
    )

    def as_request(self) -> ImportRequest:
        """What is asked of the domain."""
        return ImportRequest(file_id=self.file, concept=self.concept, model=self.base_model)


class Concept(Resource):
    """What Perfusion learns of a thing. Prompts name it as `<name>`."""

    id: str = Field(examples=["cpt_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["concept"] = "concept"
    name: str = Field(examples=["tom"])
    superclass: str = Field(examples=["cat"])
    base_model: str = Field(description="The name of the model it is learned on.", examples=["storybook"])
    latest_version: int | None = Field(description="Null until a training has succeeded, or a file was imported.")
    created_at: Time

    @classmethod
    def of(cls, concept: models.Concept, model_name: str) -> Concept:
        """The concept as it is shown in lists."""
        return cls(**_members(concept, model_name))


class GrantConcept(RequestBody):
    """Whom a concept is granted to."""

    tenant: Reference = Field(description="The id of the tenant that may draw with it.")


class Grant(Resource):
    """Leave for a tenant to draw with a concept."""

    object: Literal["concept.grant"] = "concept.grant"
    id: str = Field(description="The id of the tenant that may draw with it.")
    concept_id: str
    created_at: Time

    @classmethod
    def of(cls, grant: models.ConceptGrant) -> Grant:
        """The grant as it is shown."""
        return cls(id=grant.grantee_id, concept_id=grant.concept_id, created_at=grant.created_at)


class GrantedConcept(Concept):
    """A concept of another tenant that you may draw with."""

    owner: str = Field(description="The id of the tenant that granted it.")
    reference: str = Field(description="What generations list it as.", examples=["ten_01kaj0c5pmq2v8y4dn6rx3zwte/tom"])

    @classmethod
    def granted(cls, concept: models.Concept, model_name: str) -> GrantedConcept:
        """The concept as it is shown to whom it is granted."""
        reference = f"{concept.tenant_id}/{concept.name}"
        return cls(**_members(concept, model_name), owner=concept.tenant_id, reference=reference)


class Version(Resource):
    """One concept file: what a training made of a concept, or what was imported."""

    object: Literal["concept.version"] = "concept.version"
    concept_id: str
    version: int = Field(description="Counts from 1.")
    key_lock: str = Field(description="The key lock it was trained with.")
    gate_bias: float | None = Field(
        description="The bias it is drawn with by default under that key lock, found by its training's validation; "
        "null: the model's own."
    )
    metrics: dict[str, Any] = Field(description="How well it was learned, by its training's own account.")
    job_id: str | None = Field(description="The training that made it; null for an import.")
    file_id: str
    size_bytes: int
    sha256: str
    created_at: Time
    content_url: str = Field(description="Where the concept file (safetensors) is.")

    @classmethod
    def of(cls, version: ConceptVersion, file: File, urls: Urls) -> Version:
        """The version as it is shown."""
        return cls(
            concept_id=version.concept_id,
            version=version.version,
            key_lock=version.key_lock,
            gate_bias=version.gate_bias,
            metrics=version.metrics,
            job_id=version.job_id,
            file_id=version.file_id,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            created_at=version.created_at,
            content_url=urls.concept_content(version.concept_id, version.version),
        )


class ConceptWithVersions(Concept):
    """A concept and what was made of it."""

    versions: list[Version] = Field(description="Newest first.")

    @classmethod
    def with_versions(
        cls, concept: models.Concept, model_name: str, versions: Sequence[tuple[ConceptVersion, File]], urls: Urls
    ) -> ConceptWithVersions:
        """The concept as it is shown on its own."""
        shown = [Version.of(version, file, urls) for version, file in versions]
        return cls(**_members(concept, model_name), versions=shown)


def _members(concept: models.Concept, model_name: str) -> dict[str, Any]:
    return {
        "id": concept.id,
        "name": concept.name,
        "superclass": concept.superclass,
        "base_model": model_name,
        "latest_version": concept.latest_version,
        "created_at": concept.created_at,
    }
