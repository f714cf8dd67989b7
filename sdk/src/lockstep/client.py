"""The client: where the server is, who is asking, and the resources."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import httpx

from lockstep import jobs, money, resources, tenancy
from lockstep.errors import LockstepError
from lockstep.generations import Generations
from lockstep.retry import RetryPolicy
from lockstep.transport import Transport
from lockstep.uploads import Uploads
from lockstep.webhook_endpoints import WebhookEndpoints, WebhookSecrets

_DEFAULT_URL = "http://127.0.0.1:8000"
_USER_AGENT = "lockstep-python/0.1.0"


class Lockstep:
    """A connection to one Lockstep server as the owner of one API key.

    ::

        with Lockstep() as lockstep:
            pictures = [lockstep.files.upload(path) for path in paths]
            training = lockstep.trainings.create(concept="tom", superclass="cat", images=[p.id for p in pictures])
            lockstep.jobs.wait(training.id)

    ``base_url`` and ``api_key`` default to the environment's ``LOCKSTEP_URL`` and ``LOCKSTEP_API_KEY``. Failed calls
    are retried as ``retry`` says, each under one idempotency key, so nothing is done twice. ``transport`` replaces
    the network, as in httpx. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = base_url or os.environ.get("LOCKSTEP_URL") or _DEFAULT_URL
        key = api_key or os.environ.get("LOCKSTEP_API_KEY")
        if not key:
            raise LockstepError("no API key: pass api_key=... or set LOCKSTEP_API_KEY")
        if not url.startswith(("http://", "https://")):
            raise LockstepError(f"base_url must begin with http:// or https://, not {url!r}")
        http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": _USER_AGENT},
            timeout=httpx.Timeout(timeout, connect=10.0),
            transport=transport,
        )
        self._transport = Transport(http, retry or RetryPolicy())
        self.files = resources.Files(self._transport)
        self.uploads = Uploads(self._transport)
        self.concepts = tenancy.Concepts(self._transport)
        self.models = resources.Models(self._transport)
        self.trainings = resources.Trainings(self._transport)
        self.distillations = resources.Distillations(self._transport)
        self.generations = Generations(self._transport)
        self.jobs = jobs.Jobs(self._transport)
        self.budgets = money.Budgets(self._transport)
        self.quotes = money.Quotes(self._transport)
        self.account = money.Account(self._transport)
        self.webhook_endpoints = WebhookEndpoints(self._transport)
        self.webhook_secret = WebhookSecrets(self._transport)
        self.events = resources.Events(self._transport)
        self.api_keys = tenancy.ApiKeys(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
