"""SQL of the model catalogue."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, or_, select, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from core.catalog.models import Model
from core.tenants.models import Pool


def upsert_model(
    *, model_id: str, name: str, family: str, location: str, facts: dict[str, Any], teacher_id: str | None
) -> Insert:
    """Register a model of the platform, or update what is known of it under its name."""
    known = {
        "kind": "base" if teacher_id is None else "student",
        "family": family,
        "location": location,
        "facts": facts,
        "teacher_id": teacher_id,
    }
    row = insert(Model).values(id=model_id, name=name, **known)
    return row.on_conflict_do_update(index_elements=[Model.tenant_id, Model.name], set_=known)


def platform_model(name: str) -> Select[Model]:
    """The platform's model of that name."""
    return select(Model).where(Model.tenant_id.is_(None), Model.name == name)


def reserve_student(
    *, model_id: str, tenant_id: str, name: str, family: str, teacher_id: str, facts: dict[str, Any]
) -> ReturningInsert[Model]:
    """A student that is yet to be distilled; no row comes back where the tenant has a model of that name."""
    row = insert(Model).values(
        id=model_id,
        tenant_id=tenant_id,
        name=name,
        kind="student",
        family=family,
        teacher_id=teacher_id,
        facts=facts,
    )
    return row.on_conflict_do_nothing(index_elements=[Model.tenant_id, Model.name]).returning(Model)


def own_model(tenant_id: str, name: str) -> Select[Model]:
    """The tenant's own model of that name, held until commit."""
    return select(Model).where(Model.tenant_id == tenant_id, Model.name == name).with_for_update()


def complete_student(model_id: str, *, file_id: str, facts: dict[str, Any]) -> ReturningUpdate[str]:
    """Make a reserved student one that can draw; no row comes back where it has become one already."""
    return (
        update(Model)
        .where(Model.id == model_id, Model.file_id.is_(None))
        .values(file_id=file_id, facts=facts)
        .returning(Model.id)
    )


def upsert_pool(name: str) -> Insert:
    """Make sure that the pool exists."""
    return insert(Pool).values(name=name).on_conflict_do_nothing()


def model_named(name_or_id: str) -> Select[Model]:
    """The model of that name or id, as the session's tenant sees it; its own before the platform's."""
    named = or_(Model.id == name_or_id, Model.name == name_or_id)
    return select(Model).where(named).order_by(Model.tenant_id.nulls_last()).limit(1)


def default_model() -> Select[Model]:
    """The base model that was registered first: what a request without one means."""
    return base_models().limit(1)


def base_models() -> Select[Model]:
    """Base models, in the order in which they were registered."""
    return select(Model).where(Model.kind == "base").order_by(Model.created_at, Model.id)


def ready_student(teacher_id: str) -> Select[Model]:
    """A student of this base model that can draw: the tenant's own latest, or else the platform's."""
    ready = or_(Model.location.is_not(None), Model.file_id.is_not(None))
    query = select(Model).where(Model.kind == "student", Model.teacher_id == teacher_id, ready)
    return query.order_by(Model.tenant_id.nulls_last(), Model.created_at.desc(), Model.id).limit(1)


def model_names(ids: Collection[str]) -> Select[str, str]:
    """Ids and names of models."""
    return select(Model.id, Model.name).where(Model.id.in_(list(ids)))


def models() -> Select[Model]:
    """Every model, by name."""
    return select(Model).order_by(Model.name)
