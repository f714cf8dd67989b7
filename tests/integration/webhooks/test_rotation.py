"""A secret is replaced while webhooks arrive: receivers change over one by one, and none refuses a genuine webhook."""

from __future__ import annotations

from datetime import timedelta

import pytest
import standardwebhooks
import svix.webhooks

import lockstep
from core.webhooks import subscriptions
from core.webhooks.subscriptions import OVERLAP
from tests.integration.webhooks.conftest import Outbox
from tests.integration.webhooks.receiver import Receiver, Request

AT_ONCE = timedelta(0)
REFUSALS = (
    standardwebhooks.WebhookVerificationError,
    svix.webhooks.WebhookVerificationError,
    lockstep.WebhookRejected,
)


def by_standardwebhooks(request: Request, secret: str) -> None:
    standardwebhooks.Webhook(secret).verify(request.body, request.headers)


def by_svix(request: Request, secret: str) -> None:
    svix.webhooks.Webhook(secret).verify(request.body, request.headers)


def by_our_sdk(request: Request, secret: str) -> None:
    lockstep.webhooks.verify(request.headers, request.body, secret)


@pytest.fixture(params=[by_standardwebhooks, by_svix, by_our_sdk])
def verifies(request):
    """How a library answers: whether it takes a request for genuine."""

    def answer(sent: Request, secret: str) -> bool:
        try:
            request.param(sent, secret)
        except REFUSALS:
            return False
        return True

    return answer


async def rotate(outbox: Outbox, tenant: str, endpoint_id: str, overlap: timedelta) -> str:
    async with outbox.as_api(tenant) as session:
        return (await subscriptions.rotate_secret(session, endpoint_id, overlap=overlap))[1]


async def sent(outbox: Outbox, receiver: Receiver, tenant: str, *, ahead: timedelta = timedelta(0)) -> Request:
    await outbox.happen(tenant)
    await outbox.send(ahead=ahead)
    return receiver.requests[-1]


async def test_receivers_with_the_old_and_with_the_new_secret_verify_for_a_day(outbox, receiver, verifies):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    before = await sent(outbox, receiver, tenant)
    new = await rotate(outbox, tenant, endpoint.id, OVERLAP)
    old = endpoint.secret
    during = await sent(outbox, receiver, tenant)
    late = await sent(outbox, receiver, tenant, ahead=OVERLAP - timedelta(minutes=1))
    after = await sent(outbox, receiver, tenant, ahead=OVERLAP + timedelta(minutes=1))
    requests = (before, during, late, after)
    assert [verifies(request, old) for request in requests] == [True, True, True, False]
    assert [verifies(request, new) for request in requests] == [False, True, True, True]
    assert [len(request.headers["webhook-signature"].split()) for request in requests] == [1, 2, 2, 1]


async def test_a_secret_that_leaked_is_void_at_once_where_that_is_asked_for(outbox, receiver, verifies):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    leaked = endpoint.secret
    new = await rotate(outbox, tenant, endpoint.id, AT_ONCE)
    request = await sent(outbox, receiver, tenant)
    assert (verifies(request, leaked), verifies(request, new)) == (False, True)


async def test_of_two_rotations_in_a_day_the_last_two_secrets_sign(outbox, receiver, verifies):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    first = endpoint.secret
    second = await rotate(outbox, tenant, endpoint.id, OVERLAP)
    third = await rotate(outbox, tenant, endpoint.id, OVERLAP)
    request = await sent(outbox, receiver, tenant)
    assert [verifies(request, secret) for secret in (first, second, third)] == [False, True, True]


async def test_what_was_owed_before_a_rotation_is_signed_by_the_secrets_of_when_it_is_sent(outbox, receiver, verifies):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant)
    new = await rotate(outbox, tenant, endpoint.id, AT_ONCE)
    await outbox.send()
    assert verifies(receiver.requests[0], new)


async def test_an_old_secret_is_forgotten_when_its_time_is_over(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    await rotate(outbox, tenant, endpoint.id, OVERLAP)
    assert (await outbox.release()).forgotten == 0
    assert (await outbox.release(ahead=OVERLAP)).forgotten == 1
    (row,) = await outbox.rows("SELECT previous_secret, previous_secret_expires_at FROM webhook_endpoints")
    assert tuple(row) == (None, None)
