"""Which model a request means."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog import statements
from core.catalog.facts import ModelFacts
from core.catalog.models import Model
from core.errors import ModelUnknown, NotFound


async def select_model(session: AsyncSession, name_or_id: str | None, *, param: str) -> Model:
    """The model of that name or id, or the first one registered; raises ModelUnknown."""
    statement = statements.default_model() if name_or_id is None else statements.model_named(name_or_id)
    model = await session.scalar(statement)
    if model is None:
        detail = "No base model is registered." if name_or_id is None else f"No model {name_or_id!r} is registered."
        raise ModelUnknown(detail, param=param)
    return model


async def get_model(session: AsyncSession, name_or_id: str) -> Model:
    """The model of that name or id; raises NotFound."""
    model = await session.scalar(statements.model_named(name_or_id))
    if model is None:
        raise NotFound(f"No model {name_or_id}.", param="id")
    return model


async def all_models(session: AsyncSession) -> list[Model]:
    """Every model, by name."""
    return list(await session.scalars(statements.models()))


async def names(session: AsyncSession, ids: Collection[str]) -> dict[str, str]:
    """The names of models, by id."""
    return {row[0]: row[1] for row in await session.execute(statements.model_names(set(ids)))}


def facts_of(model: Model) -> ModelFacts:
    """What the model says of itself."""
    return ModelFacts.model_validate(model.facts)
