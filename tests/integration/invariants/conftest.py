"""A queue with jobs of every fate, on which each test breaks something and leaves nothing broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.orm import Session, sessionmaker

from core.db.engine import async_engine
from core.embedded.postgres import API
from core.ids import new_id
from core.invariants import checks
from core.jobs import execution, products
from core.jobs.execution import ClaimedJob, Ending, Return
from core.jobs.products import Product
from core.jobs.retry import JobError
from core.jobs.states import AttemptOutcome, JobState
from core.storage import keys
from core.storage.s3 import StoredObject
from tests.integration.jobs.conftest import Queue

OUTAGE = JobError("storage-unavailable", "It was away.", retryable=True)
ENDPOINT = text("""
    INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, secret, listening_since)
    VALUES ('we_1', :tenant, '', 'http://127.0.0.1/', '{}', 'whsec_', now() - interval '1 hour')
""")


class History:
    """A tenant with an endpoint and one job of each fate."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.tenant_id = queue.tenant()
        with queue.owners.begin() as connection:
            connection.execute(ENDPOINT, {"tenant": self.tenant_id})
        ids = queue.submit(self.tenant_id, 6)
        self.succeeded, self.failed, self.retried, self.running, self.waiting, self.canceled = ids
        queue.cancel(self.tenant_id, self.canceled)
        jobs = {job.id: job for job in queue.claim(4)}
        self._succeed(jobs[self.succeeded])
        failing, back = jobs[self.failed], jobs[self.retried]
        with queue.sessions.begin() as session:
            execution.finish(session, [Ending(failing.id, failing.token, JobState.FAILED, 1.0, error=OUTAGE)])
            returned = Return(back.id, back.token, AttemptOutcome.FAILED, 1.0, timedelta(seconds=50), OUTAGE)
            execution.requeue(session, [returned])

    def _succeed(self, job: ClaimedJob) -> None:
        stored = StoredObject(keys.output(job.id, job.token, "0.png"), 3, "0" * 64)
        made = Product(new_id("file"), "output", "0.png", "image/png", stored)
        with self.queue.sessions.begin() as session:
            products.keep_files(session, job, [made])
            result = {"images": [{"file_id": made.file_id}]}
            execution.finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 1.0, result=result)])


class Breakable:
    """The history within one transaction that is undone."""

    def __init__(self, history: History, connection: Connection) -> None:
        self.history = history
        self._connection = connection
        self.sessions: sessionmaker[Session] = sessionmaker(connection, join_transaction_mode="create_savepoint")

    def run(self, sql: str, **values: Any) -> None:
        """Write what the system never writes."""
        self._connection.execute(text(sql), {"tenant": self.history.tenant_id, **values})

    def add_attempt(self, job_id: str, outcome: str, *, attempt: int = 1) -> None:
        """One more attempt at a job that has ended."""
        self.run(
            "INSERT INTO job_attempts (token, job_id, tenant_id, attempt, worker_id, ended_at, outcome) "
            "VALUES (nextval('fence'), :id, :tenant, :attempt, 'wrk_2', now(), :outcome)",
            id=job_id,
            outcome=outcome,
            attempt=attempt,
        )

    def found(self) -> dict[str, list[str]]:
        """What breaks each invariant that does not hold."""
        found = checks.check(self.sessions, newest=1000)
        return {finding.invariant.name: list(finding.ids) for finding in found if finding.ids}

    def looks(self) -> dict[str, int]:
        """What maintenance kept of its last look."""
        rows = self._connection.execute(text("SELECT name, broken FROM invariant_looks"))
        return {row.name: row.broken for row in rows}


@pytest.fixture(scope="module")
def history(new_database: Callable[[], URL]) -> Iterator[History]:
    """One for all tests of the module."""
    url = new_database()
    queue = Queue(url, async_engine(url.set(username=API)))
    yield History(queue)
    queue.dispose()


@pytest.fixture
def breakable(history: History) -> Iterator[Breakable]:
    """The history, for this test alone."""
    with history.queue.owners.connect() as connection, connection.begin() as transaction:
        yield Breakable(history, connection)
        transaction.rollback()
