"""What a job leaves behind: file rows, concept versions and students, written in the transaction that ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.catalog import statements as catalog
from core.catalog.facts import ModelFacts, StudentFacts
from core.concepts import statements as concepts
from core.concepts.models import ConceptVersion
from core.errors import ModelNameTaken
from core.files.models import File
from core.jobs.execution import ClaimedJob
from core.jobs.params import DistillationParams, TrainingParams
from core.storage.s3 import StoredObject


@dataclass(frozen=True)
class Product:
    """An object that one attempt stored, and the row it becomes."""

    file_id: str
    purpose: str
    name: str
    media_type: str
    stored: StoredObject
    width: int | None = None
    height: int | None = None


def keep_files(session: Session, job: ClaimedJob, products: Iterable[Product]) -> None:
    """Make the objects visible to their tenant; the caller holds the job."""
    session.add_all(
        File(
            id=product.file_id,
            tenant_id=job.tenant_id,
            purpose=product.purpose,
            name=product.name,
            key=product.stored.key,
            media_type=product.media_type,
            size_bytes=product.stored.size_bytes,
            sha256=product.stored.sha256,
            width=product.width,
            height=product.height,
            job_id=job.id,
        )
        for product in products
    )
    session.flush()


def keep_version(
    session: Session,
    job: ClaimedJob,
    params: TrainingParams,
    *,
    file_id: str,
    gate_bias: float | None,
    metrics: Mapping[str, Any],
) -> int:
    """Make the trained file the concept's newest version and return its number; the caller holds the job."""
    version = session.execute(concepts.next_version(params.concept_id)).scalar_one()
    assert version is not None
    session.add(
        ConceptVersion(
            concept_id=params.concept_id,
            version=version,
            tenant_id=job.tenant_id,
            job_id=job.id,
            file_id=file_id,
            key_lock=params.key_lock,
            gate_bias=gate_bias,
            metrics=dict(metrics),
        )
    )
    session.flush()
    return version


def keep_student(session: Session, params: DistillationParams, *, file_id: str, timesteps: tuple[int, ...]) -> None:
    """Make the distilled file the student that the job was to make; the caller holds the job.

    Raises ModelNameTaken when another distillation has made it meanwhile.
    """
    teacher = session.scalars(catalog.model_named(params.model_id)).one()
    known = ModelFacts.model_validate(teacher.facts)
    facts = known.as_student(params.student_name, StudentFacts(teacher=known.name, timesteps=timesteps))
    made = catalog.complete_student(params.student_id, file_id=file_id, facts=facts.model_dump(mode="json"))
    if session.execute(made).one_or_none() is None:
        raise ModelNameTaken(f"The student {params.student_name!r} was made by another distillation.")
