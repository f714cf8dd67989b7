"""A deployment with an operator, whose self tests are carried out where the test says, by a maintainer's own parts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.orm import Session

from core.config import Settings
from core.embedded.postgres import API, OPERATOR, WORKER
from core.storage.s3 import ObjectStore
from core.tenants.provisioning import make_operator
from tests.serving import Deployment, Tenant, serving
from workers.maintain.selftester import SelfTester
from workers.maintain.sender import open_sender
from workers.maintain.trial import Patience

HASTY = Patience(generation=1.0, webhook=1.0)
PATIENT = Patience(generation=30.0, webhook=15.0)


class Ground:
    """One deployment; ``url`` is where its API answers."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.deployment = deployment
        self.url = url
        self.operator = Tenant(deployment, url, "operators")
        with Session(deployment.owner) as session, session.begin():
            make_operator(session, self.operator.id)
        self.own: set[str] = set()

    def ask(self) -> str:
        """Ask for a self test; its id."""
        response = self.operator.http.post("/v1/admin/selftest")
        assert response.status_code == 202, response.text
        assert response.headers["location"] == f"/v1/admin/selftest/{response.json()['id']}"
        return str(response.json()["id"])

    def told(self, test_id: str) -> dict[str, Any]:
        response = self.operator.http.get(f"/v1/admin/selftest/{test_id}")
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told

    def tester(
        self, *, patience: Patience = HASTY, url: str | None = None, store: ObjectStore | None = None
    ) -> SelfTester:
        return SelfTester(
            self.deployment.sessions,
            store or self.deployment.store,
            url=url or self.url,
            own=self.own,
            patience=patience,
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """A worker that does what comes."""
        stopped = threading.Event()

        def work() -> None:
            while not stopped.wait(0.05):
                for job_id in self.deployment.column("SELECT job_id FROM ready"):
                    self.deployment.succeed(self.deployment.claim(job_id))

        with _thread(work, stopped):
            yield

    @contextmanager
    def sending(self) -> Iterator[None]:
        """A sender, to whom nothing private is allowed but what is our own."""
        stopped = threading.Event()
        settings = self.deployment.settings.model_copy(update={"webhook_allow": ()})

        async def send() -> None:
            async with open_sender(settings, self.own) as sender:
                while not stopped.is_set():
                    await sender.run_once()
                    await asyncio.sleep(0.05)

        with _thread(lambda: asyncio.run(send()), stopped):
            yield

    def left_of(self, tenant_id: str) -> list[str]:
        """The tables that still have rows of a tenant."""
        tables = self.deployment.column(
            "SELECT table_name::text FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'tenant_id' AND table_name <> 'audit_log'"
        )
        where = "WHERE tenant_id = :id"
        return [
            table for table in tables if self.deployment.scalar(f"SELECT count(*) FROM {table} {where}", id=tenant_id)
        ]


@contextmanager
def _thread(work: Callable[[], None], stopped: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.fixture
def deployment(stack_settings: Settings, new_database: Callable[[], URL]) -> Iterator[Deployment]:
    """A database of its own for each test."""
    url = new_database()
    dsns = {"database_url": url} | {
        f"{name}_database_url": url.set(username=role)
        for name, role in (("api", API), ("worker", WORKER), ("operator", OPERATOR))
    }
    rendered = {name: dsn.render_as_string() for name, dsn in dsns.items()}
    made = Deployment(stack_settings.model_copy(update=rendered))
    yield made
    made.close()


@pytest.fixture
def ground(deployment: Deployment) -> Iterator[Ground]:
    with ExitStack() as held:
        made = Ground(deployment, held.enter_context(serving(deployment.settings)))
        held.enter_context(made.operator.http)
        yield made
