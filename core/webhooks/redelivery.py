"""What became of deliveries, and sending them once more: the API's use cases, in the request's transaction.

The session carries the tenant (``core.db.engine.bind_tenant``); another tenant's delivery is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.paging import Page, read_page
from core.errors import Invalid, NotFound, WebhookEndpointDisabled
from core.ids import new_id
from core.webhooks import statements
from core.webhooks.models import WebhookAttempt, WebhookDelivery
from core.webhooks.notices import Notice
from core.webhooks.schedule import DeliveryState
from core.webhooks.subscriptions import get_endpoint, get_own_endpoint

MOST_RECOVERED = 5_000  # of each kind, by one request


@dataclass(frozen=True)
class Recovery:
    """How many deliveries are owed anew: those that had failed, and those that there had never been."""

    resent: int
    added: int
    has_more: bool


async def list_deliveries(
    session: AsyncSession,
    endpoint_id: str,
    *,
    state: DeliveryState | None,
    after: str | None,
    before: str | None,
    limit: int,
) -> Page[WebhookDelivery]:
    """A page of what was or is to be sent to an endpoint, newest first; raises NotFound."""
    await get_endpoint(session, endpoint_id)
    return await read_page(
        session,
        partial(statements.deliveries_page, endpoint_id=endpoint_id, state=state),
        by_id=statements.delivery_by_id,
        after=after,
        before=before,
        limit=limit,
    )


async def get_delivery(
    session: AsyncSession, endpoint_id: str, delivery_id: str
) -> tuple[WebhookDelivery, Sequence[WebhookAttempt]]:
    """A delivery and its attempts in order; raises NotFound."""
    await get_endpoint(session, endpoint_id)
    delivery = await session.scalar(statements.delivery_by_id(delivery_id))
    if delivery is None or delivery.endpoint_id != endpoint_id:
        raise NotFound(f"No delivery {delivery_id} to {endpoint_id}.", param="id")
    return delivery, list(await session.scalars(statements.attempts_of(delivery_id)))


async def send_test(session: AsyncSession, endpoint_id: str) -> WebhookDelivery:
    """Owe the endpoint an event of its own; raises NotFound, Conflict, WebhookEndpointDisabled."""
    await get_own_endpoint(session, endpoint_id)
    await _enabled(session, endpoint_id)
    values = {"endpoint_id": endpoint_id, "event_id": new_id("evt"), "type": Notice.TEST}
    delivery_id = (await session.execute(statements.TELL, values)).scalar_one()
    return (await get_delivery(session, endpoint_id, delivery_id))[0]


async def resend(session: AsyncSession, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Owe a delivery anew, whatever became of it; one that is under way stays so.

    Raises NotFound, WebhookEndpointDisabled.
    """
    delivery, _ = await get_delivery(session, endpoint_id, delivery_id)
    await _enabled(session, endpoint_id)
    await session.execute(statements.RESEND, {"delivery_id": delivery_id})
    await session.refresh(delivery)
    return delivery


async def recover(session: AsyncSession, endpoint_id: str, *, since: datetime, until: datetime | None) -> Recovery:
    """Owe anew what happened since then and failed, and owe what happened since then and never was.

    Raises Invalid, NotFound, WebhookEndpointDisabled.
    """
    if until is not None and until <= since:
        raise Invalid("until must be later than since.", param="until")
    await _enabled(session, endpoint_id)
    values = {
        "endpoint_id": endpoint_id,
        "since": since,
        "until": until or datetime.max.replace(tzinfo=UTC),
        "limit": MOST_RECOVERED,
        "of_others": Notice.TEST,
    }
    resent = len((await session.execute(statements.RESEND_FAILED, values)).all())
    added = len((await session.execute(statements.ADD_MISSED, values)).all())
    return Recovery(resent, added, has_more=MOST_RECOVERED in {resent, added})


async def _enabled(session: AsyncSession, endpoint_id: str) -> None:
    endpoint = await get_endpoint(session, endpoint_id)
    if endpoint.disabled_at is not None:
        raise WebhookEndpointDisabled(f"{endpoint_id} is disabled ({endpoint.disabled_reason}); enable it first.")
