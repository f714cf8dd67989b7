"""A deployment in miniature: real Postgres and S3, a real engine process, and a supervisor in the test's own thread."""

from __future__ import annotations

import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from core.catalog.registration import register
from core.config import Settings
from core.control import verbs
from core.db.engine import async_engine, bind_tenant, sync_engine
from core.embedded.postgres import API, WORKER
from core.files.models import File
from core.ids import new_id
from core.jobs import recovery, submission
from core.jobs.params import GenerationParams, TrainingParams
from core.jobs.reproduction import reproduce_job
from core.jobs.submission import QueueLimits
from core.storage import keys
from core.storage.s3 import ObjectStore
from core.tenants.provisioning import create_tenant, set_safety
from core.tenants.safety import SafetyPolicy
from core.tracing import OFF, Tracing
from tests.engine.tiny import build_tiny_pipeline
from tests.waiting import until
from workers.attempt import PATIENCE, Patience
from workers.gpu_child import GpuChild
from workers.supervisor import Supervisor

POOL = "gpu"
LIMITS = QueueLimits(pool=POOL, max_attempts=3, tenant_max_running=16)
STEPS = 100  # long enough to be interrupted, short enough to be finished


class Deployment:
    """What a test does to the deployment, and what it reads back."""

    def __init__(self, settings: Settings, model: Path) -> None:
        self.settings = settings
        self.engine = sync_engine(settings.worker_dsn)
        self.sessions = sessionmaker(self.engine, expire_on_commit=False)
        self.store = ObjectStore.from_settings(settings)
        with self.sessions.begin() as session:
            register(session, pool=POOL, locations=[str(model)])
            self.model_id: str = session.execute(text("SELECT id FROM models")).scalar_one()
        self.enter("acme")

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, model: Path) -> Iterator[Deployment]:
        """A deployment whose connections are closed at the end."""
        made = cls(settings, model)
        try:
            yield made
        finally:
            made.engine.dispose()

    def enter(self, name: str) -> None:
        """Go on as a new tenant."""
        with self._as_owner() as session:
            self.tenant_id = create_tenant(session, name).id

    @contextmanager
    def _as_owner(self) -> Iterator[Session]:
        owner = sync_engine(self.settings.owner_dsn)
        with Session(owner) as session, session.begin():
            yield session
        owner.dispose()

    def supervisor(
        self, *, child: GpuChild | None = None, patience: Patience = PATIENCE, tracing: Tracing = OFF
    ) -> Supervisor:
        return Supervisor(
            sessions=self.sessions,
            store=self.store,
            child=child or GpuChild(device="cpu"),
            pool=POOL,
            lease=timedelta(seconds=20),
            heartbeat=timedelta(seconds=0.2),
            batch_size=8,
            cohort_size=4,
            patience=patience,
            tracing=tracing,
        )

    async def generate(self, **changes: Any) -> str:
        values = {"prompt": "a cat", "steps": 2, "guidance": 3, "n": 1, "seed": 1, "width": 16, "height": 16}
        params = GenerationParams.model_validate({"model_id": self.model_id} | values | changes)
        return await self._submit(params)

    async def train(self, *, file_ids: list[str] | None = None, **changes: Any) -> str:
        with self.sessions.begin() as session:
            concept_id = new_id("cpt")
            session.execute(
                text("INSERT INTO concepts (id, tenant_id, name, superclass, model_id) VALUES (:i, :t, :n, 'cat', :m)"),
                {"i": concept_id, "t": self.tenant_id, "n": f"tom-{concept_id[4:]}", "m": self.model_id},
            )
        values: dict[str, Any] = {"concept_id": concept_id, "concept_name": "tom", "superclass": "cat"}
        values |= {"model_id": self.model_id, "file_ids": file_ids or [self.picture()]}
        values |= {"key_lock": "local", "seed": 1, "steps": STEPS}
        return await self._submit(TrainingParams.model_validate(values | changes))

    def judge_by(self, policy: SafetyPolicy) -> None:
        with self._as_owner() as session:
            set_safety(session, self.tenant_id, policy)

    async def reproduce(self, job_id: str) -> str:
        async with self._as_tenant() as session:
            return (await reproduce_job(session, self.tenant_id, job_id, limits=LIMITS)).id

    async def _submit(self, params: GenerationParams | TrainingParams) -> str:
        async with self._as_tenant() as session:
            return (await submission.submit(session, self.tenant_id, params, limits=LIMITS)).id

    async def cancel(self, job_id: str) -> None:
        async with self._as_tenant() as session:
            await verbs.cancel(session, job_id)

    @asynccontextmanager
    async def _as_tenant(self) -> AsyncIterator[AsyncSession]:
        """A transaction as the API has it."""
        engine = async_engine(self.settings.api_dsn)
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            bind_tenant(session, self.tenant_id)
            yield session
        await engine.dispose()

    def picture(self, colour: str = "teal") -> str:
        """A stored picture file; its id."""
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
        return self.upload(buffer.getvalue())

    def upload(self, data: bytes, *, purpose: str = "picture") -> str:
        """A stored file of any bytes; its id."""
        file_id = new_id("file")
        stored = self.store.put(keys.upload(self.tenant_id, file_id), data, media_type="image/png")
        with self.sessions.begin() as session:
            session.add(
                File(
                    id=file_id, tenant_id=self.tenant_id, purpose=purpose, name="x", key=stored.key,
                    media_type="image/png", size_bytes=stored.size_bytes, sha256=stored.sha256,
                )
            )  # fmt: skip
        return file_id

    def bring_back(self) -> int:
        """Promote every job that waits for a retry, as if its time had come."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE jobs SET not_before = lockstep_now() WHERE not_before IS NOT NULL"))
            return recovery.promote(session)

    def one(self, sql: str, **values: Any) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(text(sql), values).one()

    def column(self, sql: str, **values: Any) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(text(sql), values).scalars())

    def job(self, job_id: str) -> Any:
        return self.one("SELECT * FROM jobs WHERE id = :id", id=job_id)

    def outcomes(self, job_id: str) -> list[str | None]:
        return self.column("SELECT outcome FROM job_attempts WHERE job_id = :id ORDER BY token", id=job_id)

    def until_checkpoint(self, job_id: str) -> None:
        until(lambda: self.job(job_id).checkpoint is not None)


@contextmanager
def serving(supervisor: Supervisor) -> Iterator[None]:
    """Answer one doorbell in a thread; the block is what happens meanwhile."""
    thread = threading.Thread(target=supervisor.serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model in miniature, with random weights."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def deployment(stack_settings: Settings, new_database: Callable[[], URL], tiny_model: Path) -> Iterator[Deployment]:
    """A tenant and a tiny base model in a database of their own."""
    url = new_database()
    settings = stack_settings.model_copy(
        update={
            "database_url": url.render_as_string(),
            "api_database_url": url.set(username=API).render_as_string(),
            "worker_database_url": url.set(username=WORKER).render_as_string(),
        }
    )
    with Deployment.open(settings, tiny_model) as opened:
        yield opened
