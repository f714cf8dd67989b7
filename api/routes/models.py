"""`/v1/models`: base models that concepts are learned on, students, and what pictures are drawn with."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Reader, TenantSession
from api.pagination import list_of
from api.schemas.common import ListOf
from api.schemas.models import Model
from core.catalog import selection
from core.db.paging import Page

router = APIRouter(prefix="/v1/models", tags=["Models"])


@router.get("")
async def list_models(_: Reader, session: TenantSession) -> ListOf[Model]:
    """List every model, by name."""
    return list_of(Page(await selection.all_models(session), has_more=False), Model.of)


@router.get("/{name_or_id}")
async def get_model(name_or_id: str, _: Reader, session: TenantSession) -> Model:
    """Get a model: what it draws, what it knows and what it does by default."""
    return Model.of(await selection.get_model(session, name_or_id))
