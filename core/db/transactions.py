"""One tenant's transactions: opened where they are needed, so that none is held while somebody waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from core.db.engine import bind_tenant, show_tenant, tenant_of
from core.tracing import stage

Transactions = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a transaction: committed at the end of the block, undone by an exception."""


class OutcomeUnknown(Exception):
    """The connection broke during the commit: what was written may stand or not."""


def tenant_transactions(sessions: async_sessionmaker[AsyncSession], tenant_id: str) -> Transactions:
    """Transactions that see this tenant's rows and no others. A commit may raise OutcomeUnknown."""

    @asynccontextmanager
    async def transaction() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            bind_tenant(session, tenant_id)
            yield session
            try:
                with stage("commit"):
                    await session.commit()
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise OutcomeUnknown from error
                raise

    return transaction


@asynccontextmanager
async def as_tenant(session: AsyncSession, tenant_id: str) -> AsyncIterator[None]:
    """Show another tenant's rows within the transaction, for what must happen to both tenants or to neither.

    After an exception nothing is shown again: the transaction is lost.
    """
    own = tenant_of(session)
    await session.flush()
    await session.run_sync(show_tenant, tenant_id)
    yield
    await session.flush()
    await session.run_sync(show_tenant, own)
