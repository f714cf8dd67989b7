"""The webhook sender as a part of maintenance: its connections, and its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import async_sessionmaker

from core.config import Settings
from core.db.engine import async_engine
from core.tracing import open_tracing
from core.webhooks.client import WebhookClient
from core.webhooks.sender import Sender
from core.webhooks.target_policy import TargetPolicy

_GRACE = timedelta(seconds=5)  # for answers that are still expected when the process is told to stop


@asynccontextmanager
async def open_sender(settings: Settings, own: Collection[str] = ()) -> AsyncIterator[Sender]:
    """A sender with connections of its own; ``own`` is where this process itself listens, by now."""
    engine = async_engine(settings.worker_dsn)
    client = WebhookClient(TargetPolicy.parse(settings.webhook_allow), own=own)
    tracing = open_tracing("maintain", settings.otlp_endpoint)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    sender = Sender(sessions, client, jitter=random.random, tracing=tracing)
    try:
        yield sender
    finally:
        await sender.finish(_GRACE)
        client.close()
        await engine.dispose()
        await asyncio.to_thread(tracing.close)
