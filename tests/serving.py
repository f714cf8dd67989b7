"""The API as its clients meet it: a real server on a free port, tenants with keys, and a worker that plays its part."""

from __future__ import annotations

import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import structlog
import uvicorn
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from api.main import create_app
from core.catalog.facts import ModelFacts
from core.catalog.statements import upsert_model, upsert_pool
from core.config import Settings
from core.db.engine import sync_engine
from core.ids import new_id
from core.jobs import execution, products
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.params import DistillationParams, GenerationParams, TeacherPairsParams, TrainingParams
from core.jobs.products import Product
from core.jobs.recovery import promote, reap
from core.jobs.retry import JobError
from core.jobs.states import JobState
from core.storage import keys
from core.storage.s3 import ObjectStore
from core.tenants.provisioning import create_key, create_tenant
from tests.waiting import until

POOL = "gpu"
LEASE = timedelta(seconds=45)
SCOPES = frozenset({"generate", "train", "distill", "read", "admin"})


class Deployment:
    """A database with two base models, and what an operator and a worker do to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner = sync_engine(settings.owner_dsn)
        self.worker = sync_engine(settings.worker_dsn)
        self.sessions = sessionmaker(self.worker, expire_on_commit=False)
        self.store = ObjectStore.from_settings(settings)
        with self.sessions.begin() as session:
            session.execute(upsert_pool(POOL))
        self.register("storybook", size=64, superclasses=("cat", "dog"))
        self.register("other")

    def register(self, name: str, **facts: Any) -> None:
        known = ModelFacts(name=name, **facts)
        facts = known.model_dump(mode="json")
        with self.sessions.begin() as session:
            session.execute(
                upsert_model(
                    model_id=new_id("mdl"),
                    name=name,
                    family=known.family,
                    location=name,
                    facts=facts,
                    teacher_id=None,
                )
            )

    def new_tenant(self, name: str = "acme") -> str:
        with Session(self.owner) as session, session.begin():
            return create_tenant(session, name).id

    def new_key(self, tenant_id: str, scopes: frozenset[str] = SCOPES) -> str:
        with Session(self.owner) as session, session.begin():
            return create_key(session, tenant_id, "test", scopes)

    def scalar(self, sql: str, **values: Any) -> Any:
        with self.owner.begin() as connection:
            return connection.execute(text(sql), values).scalar_one()

    def column(self, sql: str, **values: Any) -> list[Any]:
        with self.owner.begin() as connection:
            return list(connection.execute(text(sql), values).scalars())

    def lose(self, job: ClaimedJob) -> None:
        """The worker dies, and the job is back in the queue at once."""
        with self.owner.begin() as connection:
            expired = "UPDATE jobs SET lease_until = lockstep_now() - interval '1 second' WHERE id = :id"
            connection.execute(text(expired), {"id": job.id})
        with self.sessions.begin() as session:
            reap(session, jitter=lambda: 0.5)
        with self.owner.begin() as connection:
            connection.execute(text("UPDATE jobs SET not_before = lockstep_now() WHERE id = :id"), {"id": job.id})
        with self.sessions.begin() as session:
            promote(session)

    def claim(self, job_id: str) -> ClaimedJob:
        """Take jobs until this one comes."""
        return self._claim(lambda job: job.id == job_id)

    def claim_of(self, tenant_id: str) -> ClaimedJob:
        """Take jobs until one of this tenant comes."""
        return self._claim(lambda job: job.tenant_id == tenant_id)

    def _claim(self, is_wanted: Callable[[ClaimedJob], bool]) -> ClaimedJob:
        for _ in range(50):
            with self.sessions.begin() as session:
                jobs = execution.claim(session, pool=POOL, worker_id="wrk_1", warm=frozenset(), room=1, lease=LEASE)
            for job in jobs:
                if is_wanted(job):
                    return job
        raise AssertionError("not runnable")

    def report(self, job: ClaimedJob, **values: Any) -> None:
        with self.sessions.begin() as session:
            assert execution.report(session, job, **values)

    def end(self, job: ClaimedJob, state: JobState, error: JobError | None = None) -> None:
        with self.sessions.begin() as session:
            assert execution.finish(session, [Ending(job.id, job.token, state, 1.5, error=error)])

    def succeed(self, job: ClaimedJob) -> Mapping[str, Any]:
        """End a job as a worker does that made what was asked for."""
        with self.sessions.begin() as session:
            result = self._result(session, job)
            assert execution.finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 1.5, result=result)])
        return result

    def _result(self, session: Session, job: ClaimedJob) -> dict[str, Any]:
        match job.params:
            case TrainingParams():
                return self._learned(session, job)
            case DistillationParams():
                return self._distilled(session, job, job.params)
            case TeacherPairsParams(shard=shard, count=count):
                pairs = self._product(session, job, "pairs", f"{shard}.safetensors", b"pairs")
                return {"file_id": pairs.file_id, "shard": shard, "count": count}
            case GenerationParams():
                return self._drawn(session, job, job.params)

    def _distilled(self, session: Session, job: ClaimedJob, params: DistillationParams) -> dict[str, Any]:
        made = self._product(
            session, job, "student", f"{params.student_name}.safetensors", b"student of " + job.id.encode()
        )
        products.keep_student(session, params, file_id=made.file_id, timesteps=(999,))
        return {
            "model_id": params.student_id,
            "model": params.student_name,
            "file_id": made.file_id,
            "size_bytes": made.stored.size_bytes,
            "timesteps": [999],
            "metrics": {"seconds": 1.5},
        }

    def _learned(self, session: Session, job: ClaimedJob) -> dict[str, Any]:
        assert isinstance(job.params, TrainingParams)
        made = self._product(session, job, "concept", "tom.safetensors", b"concept of " + job.id.encode())
        version = products.keep_version(
            session, job, job.params, file_id=made.file_id, gate_bias=0.65, metrics={"identity": 0.9}
        )
        size = made.stored.size_bytes
        return {
            "concept_id": job.params.concept_id,
            "version": version,
            "file_id": made.file_id,
            "size_bytes": size,
            "metrics": {"identity": 0.9},
        }

    def keep_picture(self, job: ClaimedJob) -> str:
        """Id of one picture of a job that is not ended yet."""
        with self.sessions.begin() as session:
            return self._product(session, job, "output", "0.png", picture_bytes(), media_type="image/png").file_id

    def show(self, job: ClaimedJob, step: int) -> str:
        """Id of a preview that a worker tells of."""
        with self.sessions.begin() as session:
            data = picture_bytes(format="webp")
            made = self._product(session, job, "preview", f"{step}.webp", data, media_type="image/webp")
            assert execution.report(session, job, preview={"file_id": made.file_id, "step": step})
        return made.file_id

    def _drawn(self, session: Session, job: ClaimedJob, params: GenerationParams) -> dict[str, Any]:
        images = []
        for number in range(params.n):
            data = picture_bytes(format=params.file.format)
            name = f"{number}.{params.file.format}"
            purpose = "preview" if params.draft else "output"
            made = self._product(session, job, purpose, name, data, media_type=params.file.media_type)
            image = {"file_id": made.file_id, "seed": params.seed_of(number), "width": 64, "height": 64}
            images.append(image | params.swept(number))
        return {"images": images}

    def _product(
        self,
        session: Session,
        job: ClaimedJob,
        purpose: str,
        name: str,
        data: bytes,
        *,
        media_type: str = "application/octet-stream",
    ) -> Product:
        stored = self.store.put(keys.output(job.id, job.token, name), data, media_type=media_type)
        made = Product(new_id("file"), purpose, name, media_type, stored)
        products.keep_files(session, job, [made])
        return made

    def close(self) -> None:
        self.owner.dispose()
        self.worker.dispose()


class Tenant:
    """One tenant's client, with the few things that most tests begin with."""

    def __init__(self, deployment: Deployment, base_url: str, name: str) -> None:
        self.deployment = deployment
        self.base_url = base_url
        self.id = deployment.new_tenant(name)
        self.http = self.client()

    def client(self, scopes: frozenset[str] = SCOPES) -> httpx.Client:
        key = self.deployment.new_key(self.id, scopes)
        # Plain HTTP: reading the certificates would take longer than the tests.
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=20, verify=False)

    def upload(self, data: bytes | None = None, name: str = "tom.png") -> dict[str, Any]:
        return created(self.http.post("/v1/files", files={"file": (name, data or picture_bytes())}))

    def train(self, concept: str = "tom", **changes: Any) -> dict[str, Any]:
        body = {"concept": concept, "superclass": "cat", "images": [self.upload()["id"]]} | changes
        return created(self.http.post("/v1/trainings", json=body))

    def trained(self, concept: str = "tom", **changes: Any) -> str:
        """Id of a concept that a training has succeeded for."""
        job = self.train(concept, **changes)
        self.deployment.succeed(self.deployment.claim(job["id"]))
        return str(job["params"]["concept_id"])

    def distil(self, name: str = "swift", **changes: Any) -> dict[str, Any]:
        body = {"name": name, "prompts": ["a cat", "a dog"], "pairs": 0} | changes
        return created(self.http.post("/v1/distillations", json=body))

    def distilled(self, name: str = "swift", **changes: Any) -> str:
        """Id of a student that a distillation has succeeded for."""
        job = self.distil(name, **changes)
        self.deployment.succeed(self.deployment.claim(job["id"]))
        return str(job["params"]["model_id"])

    def generate(
        self, prompt: str = "a cat", *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> dict[str, Any]:
        return created(self.http.post("/v1/generations", json={"prompt": prompt} | body, headers=headers))

    def sweep(self, sweep: Mapping[str, Any], prompt: str = "<tom> on the beach", **body: Any) -> dict[str, Any]:
        return created(self.http.post("/v1/generations/sweep", json={"prompt": prompt, "sweep": sweep} | body))

    def jobs(self) -> int:
        return int(self.deployment.scalar("SELECT count(*) FROM jobs WHERE tenant_id = :id", id=self.id))


def created(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 201, response.text
    body = response.json()
    assert isinstance(body, dict)
    return body


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that a response tells of."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body = response.json()
    assert isinstance(body, dict)
    assert (body["status"], body["code"], body["error"]["code"]) == (status, code, code), body
    assert body["instance"] == f"urn:request:{response.headers['x-request-id']}"
    return body


def picture_bytes(size: tuple[int, int] = (32, 24), colour: str = "orange", **save: Any) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, save.pop("format", "PNG"), **save)
    return encoded.getvalue()


@contextmanager
def serving(settings: Settings, *, adapt: Callable[[FastAPI], None] | None = None) -> Iterator[str]:
    """The API on a free port, in a thread, adapted if need be; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings = settings.model_copy(update={"port": listener.getsockname()[1], "pool": POOL})
    app = create_app(settings)
    if adapt is not None:
        adapt(app)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    is_first = not structlog.is_configured()
    if is_first:
        structlog.configure(
            processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield settings.base_url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        if is_first:
            structlog.reset_defaults()
