"""What operators turn: weights, caps, pauses, priorities. Each holds from the next claim on.

All run in the caller's transaction and raise NotFound for what is not there.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import NotFound, NotMovable
from core.scheduling import statements
from core.scheduling.fairshare import PRIORITY_BOOST_MS, Priority


def configure_tenant(
    session: Session, pool: str, tenant_id: str, *, weight: int | None = None, max_running: int | None = None
) -> None:
    """Set a tenant's weight in a pool, or the most of its jobs that may run there at once."""
    where = {"pool": pool, "tenant_id": tenant_id}
    changed = session.execute(
        statements.CONFIGURE_TENANT, {**where, "weight": weight, "max_running": max_running}
    ).one_or_none()
    _tell(session, pool, tenant_id, found=changed is not None)


def pause_tenant(session: Session, pool: str, tenant_id: str, *, paused: bool) -> None:
    """Claim nothing of a tenant in a pool, or again; what runs goes on."""
    where = {"pool": pool, "tenant_id": tenant_id}
    changed = session.execute(statements.PAUSE_TENANT, {**where, "paused": paused}).one_or_none()
    _tell(session, pool, tenant_id, found=changed is not None)


def _tell(session: Session, pool: str, tenant_id: str, *, found: bool) -> None:
    if not found:
        raise NotFound(f"The tenant {tenant_id} has no jobs in the pool {pool!r}.", param="tenant_id")
    session.execute(statements.NOTE_TENANT, {"pool": pool, "tenant_id": tenant_id})
    session.execute(statements.RING_POOL, {"pool": pool})


def pause_pool(session: Session, pool: str, *, paused: bool) -> None:
    """Claim nothing in a pool, or again."""
    if session.execute(statements.PAUSE_POOL, {"pool": pool, "paused": paused}).one_or_none() is None:
        raise NotFound(f"No pool {pool!r}.", param="pool")
    session.execute(statements.RING_POOL, {"pool": pool})


def pause_model(session: Session, model_id: str, *, paused: bool) -> None:
    """Claim no job of a model in any pool, or again."""
    if session.execute(statements.PAUSE_MODEL, {"model_id": model_id, "paused": paused}).one_or_none() is None:
        raise NotFound(f"No model {model_id}.", param="model_id")
    if not paused:
        session.execute(statements.WAKE_ALL)


def cap_key(session: Session, api_key_id: str, max_running: int | None) -> None:
    """Let at most so many jobs of an API key run at once, those that are queued already included; None: no such cap."""
    if session.execute(statements.CAP_KEY, {"api_key_id": api_key_id, "max_running": max_running}).first() is None:
        raise NotFound(f"No API key {api_key_id}.", param="api_key_id")
    if max_running is not None:
        session.execute(statements.RECALL, {"api_key_id": api_key_id})


def move_job(session: Session, job_id: str, priority: Priority) -> None:
    """Move a queued job to another class among its tenant's; raises NotMovable for one that is not queued."""
    session.execute(statements.SHARE_TENANT, {"job_id": job_id})
    moved = session.execute(
        statements.MOVE_JOB, {"job_id": job_id, "priority": int(priority), "boost_ms": PRIORITY_BOOST_MS}
    ).one_or_none()
    if moved is None:
        raise NotMovable(f"Job {job_id} is not queued.", param="job_id")
    session.execute(statements.WAKE, {"ids": [job_id]})
