"""Putting the application together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import async_sessionmaker

from api import errors, openapi
from api.dependencies import Resources
from api.middleware import BodyLimit, RequestContext
from api.pages import (
    customers,
    operations,
    reference,
    signing,
    studio,
    studio_compare,
    studio_concepts,
    studio_gallery,
    studio_jobs,
)
from api.pages.headers import PageHeaders
from api.pages.rendering import STATIC_FOLDER, LastingFiles
from api.routes import (
    admin,
    api_keys,
    audit,
    concepts,
    distillations,
    events,
    files,
    generations,
    grants,
    health,
    jobs,
    members,
    metrics,
    models,
    money,
    sessions,
    trainings,
    uploads,
    webhook_endpoints,
    webhook_secret,
)
from api.urls import Urls
from core.budgets.terms import Terms
from core.config import Settings
from core.db.engine import async_engine
from core.files.decoding import PROCESSES, Decoder
from core.jobs.submission import QueueLimits
from core.release import release
from core.signatures import Signer
from core.storage.s3 import ObjectStore
from core.tenants.rates import RatePolicy
from core.tracing import open_tracing
from core.webhooks.target_policy import TargetPolicy

_ROUTES = (
    files,
    uploads,
    concepts,
    grants,
    models,
    trainings,
    distillations,
    generations,
    jobs,
    events,
    webhook_endpoints,
    webhook_secret,
    api_keys,
    sessions,
    members,
    audit,
    money,
    admin,
    metrics,
    health,
)
_PAGES = (
    signing,
    operations,
    customers,
    studio,
    studio_jobs,
    studio_gallery,
    studio_concepts,
    studio_compare,
    reference,
)
_MULTIPART_OVERHEAD = 64 * 1024  # boundaries and headers around the file
_HASHERS = 2
_OPERATORS_TIMEOUT = "2s"  # nobody who only looks may keep the queue from its work


def create_app(settings: Settings) -> FastAPI:
    """The API with everything it works with; connections are made when they are needed."""
    app = FastAPI(
        title="Lockstep",
        version=release(),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=_lifespan,
        docs_url=None,  # ours loads nothing from elsewhere
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.resources = _resources(settings)
    app.state.tracing = open_tracing("api", settings.otlp_endpoint)
    errors.install(app, signing.told_to_people)
    openapi.install(app)
    for module in (*_ROUTES, *_PAGES):
        app.include_router(module.router)
    app.mount("/static", LastingFiles(directory=STATIC_FOLDER))
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes + _MULTIPART_OVERHEAD)
    app.add_middleware(PageHeaders)
    app.add_middleware(RequestContext, tracing=app.state.tracing)
    return app


def _resources(settings: Settings) -> Resources:
    engine = async_engine(settings.api_dsn)
    operators = async_engine(settings.operator_dsn, pool_size=3, statement_timeout=_OPERATORS_TIMEOUT)
    return Resources(
        settings=settings,
        engine=engine,
        sessions=async_sessionmaker(engine, expire_on_commit=False),
        operator_engine=operators,
        operator_sessions=async_sessionmaker(operators, expire_on_commit=False),
        store=ObjectStore.from_settings(settings),
        public_store=_public_store(settings),
        urls=Urls(settings.base_url),
        queue=QueueLimits(
            pool=settings.pool,
            max_attempts=settings.max_attempts,
            tenant_max_running=settings.tenant_max_running,
            webhook_targets=TargetPolicy.parse(settings.webhook_allow),
            terms=Terms(settings.tenant_max_jobs or None),
        ),
        webhook_targets=TargetPolicy.parse(settings.webhook_allow),
        decoder=Decoder(max_pixels=settings.max_picture_pixels),
        decoders=CapacityLimiter(PROCESSES),
        hashers=CapacityLimiter(_HASHERS),
        signer=Signer(settings.url_secret.get_secret_value() if settings.url_secret else None),
        rates={
            "requests": RatePolicy("requests", settings.requests_per_minute),
            "jobs": RatePolicy("jobs", settings.jobs_per_minute),
        },
    )


def _public_store(settings: Settings) -> ObjectStore | None:
    if settings.s3_public_endpoint is None:
        return None
    return ObjectStore.from_settings(settings.model_copy(update={"s3_endpoint": settings.s3_public_endpoint}))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await anyio.to_thread.run_sync(app.state.resources.decoder.close)
    await app.state.resources.engine.dispose()
    await app.state.resources.operator_engine.dispose()
    await anyio.to_thread.run_sync(app.state.tracing.close)


def _operation_id(route: APIRoute) -> str:
    """Operations are named after their functions: clients are generated from the document."""
    return route.name
