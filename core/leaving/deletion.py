"""Deleting a tenant, so that nothing of it stays but what the audit log says.

In steps that may be repeated: nobody of it comes in any more and its jobs stop; its objects go; its rows go, at once.
What cannot be finished now is finished by doing it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy.orm import Session, sessionmaker

from core.concepts.grants import REVOKED
from core.control.canceling import cancel_locked
from core.errors import Conflict, NotFound
from core.jobs.events import record
from core.leaving import statements
from core.operations.audit import Actor, note
from core.storage import keys
from core.storage.s3 import ObjectStore

_OBJECTS = 1000  # removed at once


@dataclass(frozen=True)
class DeleteCounts:
    """How many rows and objects went."""

    rows: int
    objects: int


def delete_tenant(sessions: sessionmaker[Session], store: ObjectStore, actor: Actor, tenant_id: str) -> DeleteCounts:
    """Remove everything the tenant has. Raises NotFound, Conflict while its jobs still run, StorageUnavailable."""
    with sessions.begin() as session:
        _shut(session, actor, tenant_id)
    with sessions.begin() as session:
        running = session.execute(statements.COUNT_RUNNING, {"tenant_id": tenant_id}).scalar_one()
        named = [row.key for row in session.execute(statements.files_of(tenant_id))]
        job_ids = list(session.execute(statements.JOBS, {"tenant_id": tenant_id}).scalars())
    if running:
        raise Conflict(f"{running} of its jobs still run. They were asked to stop: repeat this in a moment.")
    objects = _remove_objects(store, tenant_id, named, job_ids)
    with sessions.begin() as session:
        return DeleteCounts(_remove_rows(session, actor, tenant_id), objects)


def _shut(session: Session, actor: Actor, tenant_id: str) -> None:
    """Let nobody of the tenant in any more, and stop its jobs and those that draw with what it granted."""
    where = {"tenant_id": tenant_id}
    tenant = session.execute(statements.LOCK_TENANT, where).one_or_none()
    if tenant is None:
        raise NotFound(f"No tenant {tenant_id}.", param="tenant")
    shut = (statements.REVOKE_KEYS, statements.REMOVE_INVITATIONS, statements.REMOVE_MEMBERS, statements.REVOKE_GRANTS)
    for statement in shut:
        session.execute(statement, where)
    granted = session.execute(statements.LOCK_GRANTED, where).all()
    record(session, cancel_locked(session, granted, error=REVOKED))
    record(session, cancel_locked(session, session.execute(statements.LOCK_LIVE, where).all()))
    note(session, actor, "tenant.shut", tenant_id, tenant_id=tenant_id, before={"name": tenant.name})


def _remove_objects(store: ObjectStore, tenant_id: str, named: list[str], job_ids: list[str]) -> int:
    """What rows name, and what lies beside it: checkpoints, and what lost attempts left."""
    prefixes = [keys.of_tenant(tenant_id), *map(keys.of_job, job_ids)]
    removed = _remove(store, named)
    return removed + _remove(store, chain.from_iterable(store.keys_under(prefix) for prefix in prefixes))


def _remove(store: ObjectStore, names: Iterable[str]) -> int:
    removed, left = 0, iter(names)
    while some := list(islice(left, _OBJECTS)):
        store.delete_many(some)
        removed += len(some)
    return removed


def _remove_rows(session: Session, actor: Actor, tenant_id: str) -> int:
    where = {"tenant_id": tenant_id}
    session.execute(statements.TAKE_TIME)
    session.execute(statements.HOLD_TENANT, where)
    if late := session.execute(statements.COUNT_LIVE, where).scalar_one():
        raise Conflict(f"{late} of its jobs were just being accepted: repeat this in a moment.")
    session.execute(statements.FORGET_USES, where)
    session.execute(statements.LOOSEN_FILES, where)
    removed, last = 0, -1
    while removed > last:  # triggers may write rows of the tenant while others go
        last = removed
        for table in statements.deletable_tables():
            removed += session.connection().execute(statements.delete_rows(table, tenant_id)).rowcount
    session.execute(statements.DELETE_TENANT, where)
    note(session, actor, "tenant.deleted", tenant_id, tenant_id=tenant_id, after={"rows": removed})
    return removed
