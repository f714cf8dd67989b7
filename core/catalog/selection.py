"""Which model a request means."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog import statements
from core.catalog.facts import ModelFacts
from core.catalog.models import Model
from core.errors import ModelNameTaken, ModelNotBase, ModelNotReady, ModelUnknown, NotFound
from core.ids import new_id


async def select_model(session: AsyncSession, name_or_id: str | None, *, param: str) -> Model:
    """The model of that name or id, or the first one registered; raises ModelUnknown."""
    statement = statements.default_model() if name_or_id is None else statements.model_named(name_or_id)
    model = await session.scalar(statement)
    if model is None:
        detail = "No base model is registered." if name_or_id is None else f"No model {name_or_id!r} is registered."
        raise ModelUnknown(detail, param=param)
    return model


async def select_base(session: AsyncSession, name_or_id: str | None, *, param: str) -> Model:
    """The same, of base models; raises ModelNotBase for a student."""
    model = await select_model(session, name_or_id, param=param)
    if model.kind != "base":
        raise ModelNotBase(f"The model {model.name!r} is a student; name its teacher.", param=param)
    return model


async def base_models(session: AsyncSession) -> list[Model]:
    """Every base model, the default one first."""
    return list(await session.scalars(statements.base_models()))


async def select_student(session: AsyncSession, model: Model, *, param: str) -> Model:
    """The model if it is a student, else one of its students that can draw; raises ModelNotReady."""
    if model.kind == "student":
        return model
    student = await session.scalar(statements.ready_student(model.id))
    if student is None:
        raise ModelNotReady(f"The model {model.name!r} has no student that draws in one step yet.", param=param)
    return student


def require_ready(model: Model, *, param: str) -> None:
    """Raise ModelNotReady for a student that is still being distilled, or that no distillation has made."""
    if not model.is_ready:
        raise ModelNotReady(f"The student {model.name!r} has not been distilled yet.", param=param)


async def reserve_student(session: AsyncSession, *, tenant_id: str, name: str, teacher: Model) -> Model:
    """The tenant's student of that name, held until commit, for a distillation to make; raises ModelNameTaken.

    One that no distillation has succeeded with may be tried again, also with another teacher.
    """
    if await session.scalar(statements.platform_model(name)) is not None:
        raise ModelNameTaken(f"A model named {name!r} exists already.", param="name")
    facts = facts_of(teacher).model_copy(update={"name": name}).model_dump(mode="json")
    statement = statements.reserve_student(
        model_id=new_id("mdl"),
        tenant_id=tenant_id,
        name=name,
        family=teacher.family,
        teacher_id=teacher.id,
        facts=facts,
    )
    made = (await session.scalars(statement)).one_or_none()
    if made is not None:
        return made
    known = await session.scalar(statements.own_model(tenant_id, name))
    if known is None or known.is_ready:  # ready ones are not ours to change, and so not to hold
        raise ModelNameTaken(f"A model named {name!r} exists already.", param="name")
    known.teacher_id, known.family, known.facts = teacher.id, teacher.family, facts
    return known


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
