"""SQL of the model catalogue."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.dialects.postgresql import Insert, insert

from core.catalog.models import Model
from core.tenants.models import Pool


def upsert_model(*, model_id: str, name: str, family: str, location: str, facts: dict[str, Any]) -> Insert:
    """Register a base model of the platform, or update what is known of it under its name."""
    row = insert(Model).values(id=model_id, name=name, kind="base", family=family, location=location, facts=facts)
    return row.on_conflict_do_update(
        index_elements=[Model.name], set_={"family": family, "location": location, "facts": facts}
    )


def upsert_pool(name: str) -> Insert:
    """Make sure that the pool exists."""
    return insert(Pool).values(name=name).on_conflict_do_nothing()


def model_named(name_or_id: str) -> Select[Model]:
    """The model of that name or id, as the session's tenant sees it."""
    return select(Model).where(or_(Model.id == name_or_id, Model.name == name_or_id))


def default_model() -> Select[Model]:
    """The base model that was registered first: what a request without one means."""
    return select(Model).where(Model.kind == "base").order_by(Model.created_at, Model.id).limit(1)


def model_names(ids: Collection[str]) -> Select[str, str]:
    """Ids and names of models."""
    return select(Model.id, Model.name).where(Model.id.in_(list(ids)))


def models() -> Select[Model]:
    """Every model, by name."""
    return select(Model).order_by(Model.name)
