"""What operators see and turn, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api.schemas.common import RequestBody, Resource, Text, Time
from api.schemas.job import PriorityName
from core.jobs import models
from core.jobs.states import JobState
from core.operations.models import AuditEntry
from core.scheduling.fairshare import Priority
from core.selftest.models import SelfTest
from core.selftest.records import StageState

Weight = Annotated[int, Field(ge=1, le=1_000_000)]
Cap = Annotated[int, Field(ge=0, le=1_000_000)]


class _Change(RequestBody):
    """What is to change; what is left out stays."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say what is to change")
        return self


class ChangePool(_Change):
    """A pool's pause."""

    paused: bool


class ChangeTenant(_Change):
    """A tenant's standing in a pool."""

    weight: Weight | None = Field(default=None, description="Its share against others'; 100 is usual.")
    max_running: Cap | None = Field(default=None, description="Most of its jobs running at once.")
    paused: bool | None = None


class ChangeModel(_Change):
    """A model's pause."""

    paused: bool


class ChangeApiKey(_Change):
    """An API key's cap."""

    max_running: Cap | None = Field(description="Most of its jobs running at once; null: no cap of its own.")


class ChangeWorker(_Change):
    """Whether a worker takes part."""

    drained: bool = Field(description="True: it finishes its batch and claims nothing more.")
    quarantined: bool = Field(
        default=False, description="With `drained`: its batch is taken from it at once, and goes back to the queue."
    )
    reason: Annotated[Text, Field(max_length=500)] = Field(default="", description="For other operators.")

    @model_validator(mode="after")
    def _is_drained_if_quarantined(self) -> Self:
        if self.quarantined and not self.drained:
            raise ValueError("what is quarantined is drained")
        return self


class ChangeJob(_Change):
    """A queued job's place among its tenant's."""

    priority: PriorityName


class PriorityWaits(Resource):
    """What became of the attempts of one priority that ended last."""

    priority: PriorityName
    ended: int
    succeeded: int
    wait_p50: float = Field(description="Seconds from acceptance to start.")
    wait_p95: float


class FailureCount(Resource):
    """How often attempts failed with one code."""

    code: str
    failures: int


class PoolState(Resource):
    """A pool as it stands."""

    object: Literal["pool"] = "pool"
    name: str
    paused: bool
    queued: int = Field(description="Jobs that could be claimed; counted up to 10,000.")
    running: int
    oldest_wait: float | None = Field(description="Seconds that the first job of a tenant whose turn may come waits.")
    workers: int
    recent: list[PriorityWaits] = Field(description="Of the last hour, at most 2,000 attempts.")
    failures: list[FailureCount]


class PoolList(Resource):
    """Every pool."""

    object: Literal["list"] = "list"
    data: list[PoolState]


class TenantInPool(Resource):
    """A tenant's standing in a pool."""

    object: Literal["pool.tenant"] = "pool.tenant"
    tenant_id: str
    name: str
    weight: int
    share: float = Field(description="Of the weights of the tenants on this page that have work.")
    max_running: int
    running: int
    queued: int
    paused: bool


class TenantsInPool(Resource):
    """One page of tenants, by id; go on with `after=<last_id>` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[TenantInPool]
    has_more: bool
    last_id: str | None


class WorkerState(Resource):
    """A worker process."""

    object: Literal["worker"] = "worker"
    id: str
    pool: str
    host: str
    pid: int
    state: str
    device: str | None
    warm_models: list[str]
    drained: bool
    quarantined: bool
    drain_reason: str | None
    device_kind: Literal["gpu", "cpu"] | None = Field(description="Whose figures follow; of a CPU, the worker's part.")
    utilization: float | None = Field(description="From 0 to 1.")
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: float | None
    power_w: float | None
    started_at: Time
    heartbeat_at: Time

    @classmethod
    def of(cls, worker: models.Worker) -> WorkerState:
        """The worker as it is shown."""
        members: dict[str, Any] = {name: getattr(worker, name) for name in cls.model_fields if hasattr(worker, name)}
        flags = {"drained": worker.drained_at is not None, "quarantined": worker.quarantined_at is not None}
        return cls.model_validate(members | flags)


class WorkerList(Resource):
    """One page of workers; go on with `after=<last_id>` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[WorkerState]
    has_more: bool
    last_id: str | None


class JobOfTenant(Resource):
    """A job of any tenant, in short."""

    object: Literal["admin.job"] = "admin.job"
    id: str
    tenant_id: str
    kind: str
    state: JobState
    pool: str
    model_id: str
    priority: PriorityName
    attempt: int
    worker_id: str | None
    error: dict[str, Any] | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    gpu_seconds: float

    @classmethod
    def of(cls, job: models.Job) -> JobOfTenant:
        """The job as it is shown."""
        members: dict[str, Any] = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        return cls.model_validate(members | {"priority": Priority(job.priority).name.lower()})


class AuditedAct(Resource):
    """A privileged act."""

    object: Literal["audit.entry"] = "audit.entry"
    id: str
    tenant_id: str | None = Field(description="Whom it concerns.")
    actor: str = Field(description="The id of the key or user that acted; `lockstepd` is the operator's command line.")
    action: str = Field(examples=["tenant.changed"])
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    created_at: Time

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditedAct:
        """The act as it is shown."""
        members: dict[str, Any] = {name: getattr(entry, name) for name in cls.model_fields if hasattr(entry, name)}
        return cls.model_validate(members)


class SelfTestStage(Resource):
    """One stage of a self test."""

    name: str = Field(examples=["storage"])
    state: StageState
    seconds: float
    error: str | None = Field(description="What went wrong, and what may be done about it.")


class SelfTestState(Resource):
    """A self test: a synthetic tenant's way through everything."""

    object: Literal["admin.selftest"] = "admin.selftest"
    id: str
    state: Literal["queued", "running", "succeeded", "failed"]
    stages: list[SelfTestStage] = Field(description="Those that have ended, in order.")
    error: str | None = Field(description="What kept it from being carried out, if something did.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None

    @classmethod
    def of(cls, test: SelfTest) -> SelfTestState:
        """The self test as it is shown."""
        return cls.model_validate({name: getattr(test, name) for name in cls.model_fields if hasattr(test, name)})
