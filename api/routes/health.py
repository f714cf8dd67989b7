"""Whether the process lives, and whether it can do its work. Needs no key."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from api.dependencies import Server
from api.schemas.common import Resource
from core.db.readiness import is_migrated

router = APIRouter(tags=["Health"])


class Health(Resource):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Resource):
    """What the API needs to do its work. Not the broker: jobs are accepted without it."""

    ready: bool
    database: bool = Field(description="Postgres answers and has every table.")
    object_store: bool = Field(description="The bucket answers.")


@router.get("/healthz")
async def health() -> Health:
    """Say that the process is alive."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readiness(server: Server, response: Response) -> Readiness:
    """Say whether requests can be served; 503 if not."""
    database = await is_migrated(server.engine)
    object_store = await run_in_threadpool(server.store.is_reachable)
    ready = database and object_store
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, database=database, object_store=object_store)
