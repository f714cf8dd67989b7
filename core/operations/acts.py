"""What operators do, each act written down with what was there before. All hold from the next claim on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.control.canceling import cancel_locked
from core.control.statements import LOCK_FAMILY
from core.errors import NotCancelable, NotFound
from core.jobs.events import record
from core.jobs.execution import Return, requeue
from core.jobs.statements import HELD_BY
from core.jobs.states import AttemptOutcome, JobState
from core.operations import statements
from core.operations.audit import Actor, note
from core.scheduling import levers
from core.scheduling.fairshare import Priority


def change_tenant(
    session: Session,
    actor: Actor,
    pool: str,
    tenant_id: str,
    *,
    weight: int | None = None,
    max_running: int | None = None,
    paused: bool | None = None,
) -> None:
    """Change a tenant's weight or cap in a pool, or pause or resume it there."""
    before = _found(session, statements.TENANT_POOL, f"{tenant_id} in {pool!r}", pool=pool, tenant_id=tenant_id)
    if weight is not None or max_running is not None:
        levers.configure_tenant(session, pool, tenant_id, weight=weight, max_running=max_running)
    if paused is not None:
        levers.pause_tenant(session, pool, tenant_id, paused=paused)
    wanted = {"weight": weight, "max_running": max_running, "paused": paused}
    after = {name: value for name, value in wanted.items() if value is not None}
    was = _before(before, after)
    note(session, actor, "tenant.changed", f"{pool}/{tenant_id}", tenant_id=tenant_id, before=was, after=after)


def pause_pool(session: Session, actor: Actor, pool: str, *, paused: bool) -> None:
    """Pause or resume a pool."""
    before = _found(session, statements.POOL, f"pool {pool!r}", pool=pool)
    levers.pause_pool(session, pool, paused=paused)
    after = {"paused": paused}
    note(session, actor, "pool.changed", pool, before=_before(before, after), after=after)


def pause_model(session: Session, actor: Actor, model_id: str, *, paused: bool) -> None:
    """Pause or resume a model in all pools."""
    before = _found(session, statements.MODEL, f"model {model_id}", model_id=model_id)
    levers.pause_model(session, model_id, paused=paused)
    after = {"paused": paused}
    was = _before(before, after)
    note(session, actor, "model.changed", model_id, tenant_id=before.tenant_id, before=was, after=after)


def cap_key(session: Session, actor: Actor, api_key_id: str, max_running: int | None) -> None:
    """Set or lift the cap of an API key."""
    before = _found(session, statements.API_KEY, f"API key {api_key_id}", api_key_id=api_key_id)
    levers.cap_key(session, api_key_id, max_running)
    after = {"max_running": max_running}
    note(
        session, actor, "api_key.changed", api_key_id, tenant_id=before.tenant_id,
        before={"max_running": before.max_running}, after=after,
    )  # fmt: skip


def drain_worker(
    session: Session, actor: Actor, worker_id: str, *, drained: bool, quarantined: bool = False, reason: str = ""
) -> None:
    """Let a worker claim nothing more once its batch is done, or again.

    One that is quarantined ends no batch either: what it holds goes back to the queue, not counted as an attempt, and
    nothing that it still says is heard.
    """
    values = {"worker_id": worker_id, "drained": drained, "quarantined": quarantined, "reason": reason}
    if session.execute(statements.DRAIN, values).one_or_none() is None:
        raise NotFound(f"No worker {worker_id}.", param="worker_id")
    taken = _take_back(session, worker_id) if quarantined else set()
    after = {"drained": drained, "quarantined": quarantined, "reason": reason}
    note(session, actor, "worker.changed", worker_id, after=after | ({"taken_back": sorted(taken)} if taken else {}))


def _take_back(session: Session, worker_id: str) -> set[str]:
    held = session.execute(HELD_BY, {"worker_id": worker_id}).all()
    return requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 0.0) for job in held])


def move_job(session: Session, actor: Actor, job_id: str, priority: Priority) -> None:
    """Move a queued job to another class among its tenant's."""
    before = _found(session, statements.JOB, f"job {job_id}", job_id=job_id)
    levers.move_job(session, job_id, priority)
    named = {"priority": Priority(before.priority).name.lower()}, {"priority": priority.name.lower()}
    note(session, actor, "job.moved", job_id, tenant_id=before.tenant_id, before=named[0], after=named[1])


def cancel_job(session: Session, actor: Actor, job_id: str) -> None:
    """Cancel a job, whosever it is, as its tenant could."""
    family = session.execute(LOCK_FAMILY, {"job_id": job_id}).all()
    job = _found(session, statements.JOB, f"job {job_id}", job_id=job_id)
    if JobState(job.state).is_terminal:
        raise NotCancelable(f"Job {job_id} has already {job.state}.")
    record(session, cancel_locked(session, family))
    note(session, actor, "job.canceled", job_id, tenant_id=job.tenant_id, before={"state": job.state})


def _found(session: Session, statement: Any, what: str, **where: str) -> Row[Any]:
    row = session.execute(statement, where).one_or_none()
    if row is None:
        raise NotFound(f"No {what}.")
    return row


def _before(row: Row[Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """What just that was before which is changed."""
    known = {**row._mapping, "paused": row.paused_at is not None}
    return {name: known[name] for name in changed}
