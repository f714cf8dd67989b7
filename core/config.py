"""Settings, read from the environment once and passed in.

Every process builds ``Settings()`` at its entry point; below that, functions take the values they need. Each
setting is one ``LOCKSTEP_...`` variable and is described in ``docs/settings.md``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url


class Settings(BaseSettings):
    """What one deployment is configured with."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", frozen=True, extra="ignore", populate_by_name=True)

    database_url: str = Field(
        default="postgresql+psycopg://lockstep_owner@127.0.0.1/lockstep",
        description="Postgres, as the role that owns the tables; migrations use it.",
    )
    api_database_url: str | None = Field(
        default=None,
        description="Postgres for the API, as a role under row-level security. "
        "Unset: the owner's URL with `SET ROLE lockstep_api`.",
    )
    worker_database_url: str | None = Field(
        default=None,
        description="Postgres for workers and maintenance. Unset: the owner's URL with `SET ROLE lockstep_worker`.",
    )
    operator_database_url: str | None = Field(
        default=None,
        description="Postgres for `/v1/admin`, as a role that sees all tenants. "
        "Unset: the owner's URL with `SET ROLE lockstep_operator`.",
    )
    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis-protocol broker that carries the doorbells."
    )
    s3_endpoint: str | None = Field(default=None, description="S3-compatible endpoint. Unset: AWS.")
    s3_bucket: str = Field(default="lockstep", description="Bucket that holds every file.")
    s3_region: str = Field(default="us-east-1", description="Region the requests are signed for.")
    s3_access_key: SecretStr | None = Field(default=None, description="Access key. Unset: boto3's own search.")
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret key. Unset: boto3's own search.")

    s3_public_endpoint: str | None = Field(
        default=None,
        description="Where clients reach object storage, for uploads that go straight there. Unset: through the API.",
    )

    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, description="Port the API listens on.")
    public_url: str | None = Field(
        default=None,
        description="How clients reach the API; links in answers begin with it. Unset: http://host:port.",
    )
    url_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Signs addresses that need no key, the same in every process of the API. Unset: none are signed.",
    )
    internal_url: str | None = Field(
        default=None,
        description="How the deployment itself reaches the API, for its self test. Unset: as clients do.",
    )
    session_days: float = Field(default=7.0, gt=0, le=365, description="How long somebody who signs in stays so.")
    data_dir: Path = Field(default=Path(".lockstep"), description="Where the embedded servers and logs live.")

    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LOCKSTEP_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Where traces are sent by OTLP over HTTP, without `/v1/traces`. Unset: nothing is traced.",
    )

    pool: str = Field(default="gpu", description="The pool a worker serves and new jobs go to.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("models/storybook", "models/storybook-student"),
        description="Models to register at start, the default first: diffusers folders or hub ids, comma-separated.",
    )
    device: str = Field(default="auto", description="The engine's device: `auto`, `cpu`, `cuda`, `cuda:1`, ...")
    model_bytes: int = Field(
        default=0, ge=0, description="Most bytes of models kept loaded, but for the one in use. 0: half of the memory."
    )
    compile: bool = Field(
        default=False,
        description="Compile networks for drawing: the first batch of each size takes minutes, the rest less time. "
        "Needs a C++ compiler.",
    )
    distillation_processes: int = Field(
        default=0, ge=0, description="Most processes a distillation is shared out to. 0: one on each GPU."
    )
    safety_checker: str | None = Field(
        default=None,
        description="What judges the pictures of tenants whose policy asks for it, as `package.module:name`. "
        "Unset: nothing does, and their generations fail.",
    )
    safety_threshold: float = Field(
        default=0.8, ge=0, le=1, description="The score, from 0 to 1, from which on a picture is unsafe."
    )

    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Private networks webhooks may reach, as comma-separated CIDRs. Unset: public addresses only.",
    )
    max_upload_bytes: int = Field(default=20 * 1024 * 1024, description="Largest upload accepted, in bytes.")
    max_picture_pixels: int = Field(default=40_000_000, description="Largest picture accepted, in pixels.")
    max_training_pictures: int = Field(default=10, description="Most pictures one training may take.")

    requests_per_minute: int = Field(
        default=6000,
        ge=0,
        description="Most requests of one tenant a minute that make no jobs. 0: no limit.",
    )
    jobs_per_minute: int = Field(
        default=3000, ge=0, description="Most requests of one tenant a minute that make jobs. 0: no limit."
    )
    tenant_max_jobs: int = Field(
        default=100_000, ge=0, description="Most jobs of one tenant that wait or run at once. 0: no limit."
    )
    tenant_max_bytes: int = Field(
        default=0, ge=0, description="Most bytes that the files of one tenant may take before uploads end. 0: no limit."
    )
    quote_minutes: float = Field(default=15.0, gt=0, description="For how long a quote holds.")

    lease_seconds: float = Field(default=45.0, description="How long a claim holds without a heartbeat.")
    heartbeat_seconds: float = Field(default=10.0, description="How often a worker renews its leases.")
    max_attempts: int = Field(default=3, description="Attempts of a job before it fails for good.")
    batch_size: int = Field(default=8, description="Most generations one claim takes into a batch.")
    cohort_size: int = Field(default=4, ge=1, description="Most trainings of one model that run side by side.")
    preempt_after_seconds: float = Field(
        default=30.0, ge=0, description="How long a training or distillation runs before it makes way for generations."
    )
    preempt_most: int = Field(
        default=3, ge=0, description="How often one job makes way for generations at most. 0: never."
    )
    keep_jobs_days: int = Field(
        default=90, ge=0, description="How long jobs are kept that have ended, with their attempts. 0: for ever."
    )
    keep_events_days: int = Field(
        default=30, ge=0, description="How long events and their deliveries are kept. 0: as long as their jobs."
    )
    keep_files_days: int = Field(
        default=0, ge=0, description="How long pictures and previews that jobs made are kept. 0: for ever."
    )
    tenant_max_running: int = Field(default=16, description="Most jobs of one tenant running in a pool at once.")

    @field_validator("webhook_allow", "models", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def environment(self) -> dict[str, str]:
        """The variables that give another process what was set here; defaults are left to its own."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {f"LOCKSTEP_{name.upper()}": _as_text(value) for name, value in values.items() if value is not None}

    @property
    def base_url(self) -> str:
        """How clients reach the API, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def lease(self) -> timedelta:
        """How long a claim holds without a heartbeat."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def heartbeat(self) -> timedelta:
        """How often a worker renews its leases."""
        return timedelta(seconds=self.heartbeat_seconds)

    @property
    def owner_dsn(self) -> URL:
        """Postgres as the role that owns the tables."""
        return _with_psycopg(self.database_url)

    @property
    def api_dsn(self) -> URL:
        """Postgres as the API's role, under row-level security."""
        return (
            _as_role(self.database_url, "lockstep_api")
            if self.api_database_url is None
            else _with_psycopg(self.api_database_url)
        )

    @property
    def operator_dsn(self) -> URL:
        """Postgres as the operators' role."""
        return (
            _as_role(self.database_url, "lockstep_operator")
            if self.operator_database_url is None
            else _with_psycopg(self.operator_database_url)
        )

    @property
    def worker_dsn(self) -> URL:
        """Postgres as the workers' role."""
        return (
            _as_role(self.database_url, "lockstep_worker")
            if self.worker_database_url is None
            else _with_psycopg(self.worker_database_url)
        )


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that is to have ``settings``: our own, with theirs on top."""
    return {**os.environ, **settings.environment()}


def _as_text(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def _with_psycopg(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+psycopg")


def _as_role(url: str, role: str) -> URL:
    """The same login, acting as ``role`` from the first statement on."""
    return _with_psycopg(url).update_query_dict({"options": f"-c role={role}"})
