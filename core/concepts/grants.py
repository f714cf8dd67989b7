"""Leave for other tenants to draw with a concept: given, listed and revoked by its owner, and used by the others.

Everything runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.concepts import registry, statements
from core.concepts.models import ConceptGrant
from core.control import statements as control
from core.control.canceling import cancel_locked
from core.db.paging import Page, read_page
from core.db.transactions import as_tenant
from core.errors import Invalid, NotFound
from core.jobs.events import record_async
from core.jobs.retry import JobError
from core.operations.audit import Actor, note

REVOKED = JobError("grant-revoked", "A concept that it draws with is granted to you no more.", retryable=False)


async def grant(session: AsyncSession, actor: Actor, tenant_id: str, name_or_id: str, grantee_id: str) -> ConceptGrant:
    """Let another tenant draw with the concept; granting twice is no error. Raises NotFound and Invalid."""
    concept = await registry.get(session, name_or_id)
    if grantee_id == tenant_id:
        raise Invalid("The concept is yours already.", param="tenant")
    values = {"tenant_id": tenant_id, "concept_id": concept.id, "grantee_id": grantee_id}
    try:
        made = (await session.execute(statements.GRANT, values)).one_or_none()
    except IntegrityError as error:
        raise NotFound(f"No tenant {grantee_id}.", param="tenant") from error
    if made is not None:
        after = {"name": concept.name, "tenant": grantee_id}
        note(session.sync_session, actor, "concept.granted", concept.id, tenant_id=tenant_id, after=after)
    return (await session.scalars(statements.grant_to(concept.id, grantee_id))).one()


async def list_grants(
    session: AsyncSession, name_or_id: str, *, after: str | None, before: str | None, limit: int
) -> Page[ConceptGrant]:
    """A page of those who may draw with the concept, the latest first; raises NotFound."""
    concept = await registry.get(session, name_or_id)
    return await read_page(
        session,
        partial(statements.grants_page, concept.id),
        by_id=partial(statements.grant_to, concept.id),
        after=after,
        before=before,
        limit=limit,
    )


async def revoke(session: AsyncSession, actor: Actor, tenant_id: str, name_or_id: str, grantee_id: str) -> None:
    """Take the leave back, and stop what was to be drawn with it; raises NotFound.

    What the other tenant has queued ends as canceled, and what runs is asked to stop, in the same transaction.
    """
    concept = await registry.get(session, name_or_id)
    values = {"concept_id": concept.id, "grantee_id": grantee_id}
    if (await session.execute(statements.REVOKE, values)).one_or_none() is None:
        raise NotFound(f"The concept {concept.name!r} is not granted to {grantee_id}.", param="tenant_id")
    before = {"name": concept.name, "tenant": grantee_id}
    note(session.sync_session, actor, "concept.revoked", concept.id, tenant_id=tenant_id, before=before)
    async with as_tenant(session, grantee_id):
        ids = (await session.execute(statements.LIVE_USERS, {"concept_id": concept.id})).scalars().all()
        family = (await session.execute(control.LOCK_FAMILIES, {"ids": list(ids)})).all()
        stop = partial(cancel_locked, jobs=family, error=REVOKED)
        await record_async(session, await session.run_sync(stop))


async def use(session: AsyncSession, job_id: str, concept_ids: Collection[str]) -> None:
    """Write down that a job, just written, draws with what others granted; raises NotFound if one did not.

    Until commit no such grant is revoked.
    """
    if not concept_ids:
        return
    values = {"job_id": job_id, "concept_ids": sorted(concept_ids)}
    granted = set((await session.execute(statements.USE_GRANTS, values)).scalars())
    if missing := sorted(set(concept_ids) - granted):
        raise NotFound(f"The concept {missing[0]} is granted to you no more.", param="concepts")
