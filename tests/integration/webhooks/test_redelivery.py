"""Test events, the log of deliveries, sending one again, and recovering all since a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import Invalid, NotFound, WebhookEndpointDisabled
from core.jobs.events import Verb
from core.webhooks import redelivery, subscriptions
from core.webhooks.redelivery import Recovery
from core.webhooks.schedule import MAX_ATTEMPTS, DeliveryState
from core.webhooks.sender import SendCounts
from tests.integration.webhooks.conftest import SOON
from tests.integration.webhooks.receiver import HANG, answer

HOUR = timedelta(hours=1)


async def test_a_test_event_reaches_its_endpoint_whatever_that_wants_and_no_other(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url("/tested"), "training.failed")
    await outbox.endpoint(tenant, receiver.url("/other"))
    async with outbox.as_api(tenant) as session:
        delivery = await redelivery.send_test(session, endpoint.id)
    assert (delivery.state, delivery.event.type) == ("pending", "webhook_endpoint.test")
    assert await outbox.send() == SendCounts(started=1, delivered=1)
    (request,) = receiver.requests
    body = request.verified(endpoint.secret)
    assert (request.path, body["type"], body["data"]["id"]) == ("/tested", "webhook_endpoint.test", endpoint.id)


async def test_the_log_tells_every_attempt_of_a_delivery(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(answer(500), answer(204))
    await outbox.send()
    await outbox.send(ahead=timedelta(seconds=6))
    async with outbox.as_api(tenant) as session:
        delivery, attempts = await redelivery.get_delivery(session, endpoint.id, (await outbox.delivery(event_id)).id)
    assert (delivery.state, delivery.event.type) == ("delivered", "generation.queued")
    assert [(row.attempt, row.status, row.error) for row in attempts] == [(1, 500, "Answered 500."), (2, 204, None)]


async def test_the_log_is_filtered_by_state_and_paged(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    ids = await outbox.happen(tenant, 4)
    await outbox.rows(
        "UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL WHERE event_id = ANY (:ids)",
        ids=ids[:3],
    )

    async def page(state, after=None):
        async with outbox.as_api(tenant) as session:
            return await redelivery.list_deliveries(
                session, endpoint.id, state=state, after=after, before=None, limit=2
            )

    first = await page(DeliveryState.FAILED)
    rest = await page(DeliveryState.FAILED, after=first.rows[-1].id)
    assert {row.event_id for row in first.rows + rest.rows} == set(ids[:3])
    assert (first.has_more, rest.has_more) == (True, False)
    assert [row.event_id for row in (await page(DeliveryState.PENDING)).rows] == ids[3:]


async def resend(outbox, tenant, endpoint, event_id):
    async with outbox.as_api(tenant) as session:
        return await redelivery.resend(session, endpoint.id, (await outbox.delivery(event_id)).id)


async def test_a_delivery_that_was_given_up_is_sent_again_with_the_same_id_and_ten_attempts_anew(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    await outbox.rows(
        "UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, attempt = :most", most=MAX_ATTEMPTS
    )
    assert (await resend(outbox, tenant, endpoint, event_id)).state == "pending"
    receiver.will_answer(answer(500), answer(204))
    assert await outbox.send() == SendCounts(started=1, retried=1)
    assert await outbox.send(ahead=timedelta(seconds=6)) == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [event_id] * 2
    assert [row.attempt for row in await outbox.attempts(event_id)] == [MAX_ATTEMPTS + 1, MAX_ATTEMPTS + 2]


async def test_a_delivery_that_arrived_can_be_sent_again(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    await outbox.send()
    again = await resend(outbox, tenant, endpoint, event_id)
    assert (again.state, again.delivered_at, again.attempt) == ("pending", None, 1)
    assert await outbox.send() == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [event_id] * 2


async def test_a_delivery_that_waits_for_its_next_attempt_is_sent_at_once(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(answer(500), answer(204))
    await outbox.send()
    await resend(outbox, tenant, endpoint, event_id)
    assert await outbox.send() == SendCounts(started=1, delivered=1)


async def test_a_delivery_that_is_under_way_is_not_sent_twice(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(HANG)
    async with outbox.sender() as sender:
        await sender.run_once()
        await receiver.has(1)
        await resend(outbox, tenant, endpoint, event_id)
        assert await outbox.send() == SendCounts()
        receiver.release()
        assert await sender.finish(SOON) == SendCounts(delivered=1)
    assert len(receiver.requests) == 1


async def recover(outbox, tenant, endpoint, since, until=None):
    async with outbox.as_api(tenant) as session:
        return await redelivery.recover(session, endpoint.id, since=since, until=until)


async def test_what_failed_since_a_time_is_sent_again_and_nothing_else(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    before, failed, arrived = await outbox.happen(tenant, 3)
    await outbox.rows("UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL")
    await outbox.rows(
        "UPDATE webhook_deliveries SET state = 'delivered', delivered_at = now() WHERE event_id = :id", id=arrived
    )
    await outbox.rows("UPDATE events SET created_at = now() - interval '2 hours' WHERE id = :id", id=before)
    assert await recover(outbox, tenant, endpoint, datetime.now(UTC) - HOUR) == Recovery(1, 0, has_more=False)
    await outbox.send()
    assert [request.id for request in receiver.requests] == [failed]
    assert await recover(outbox, tenant, endpoint, datetime.now(UTC) - HOUR) == Recovery(0, 0, has_more=False)


async def test_what_happened_before_an_endpoint_was_there_is_owed_to_it_by_its_filter(outbox, receiver):
    tenant = await outbox.tenant()
    (queued,) = await outbox.happen(tenant)
    (started,) = await outbox.go_on(tenant, queued, Verb.STARTED)
    stranger = await outbox.tenant("stranger")
    await outbox.happen(stranger)
    other = await outbox.endpoint(tenant, receiver.url("/other"))
    async with outbox.as_api(tenant) as session:
        await redelivery.send_test(session, other.id)
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.started", "webhook_endpoint.test")
    assert await recover(outbox, tenant, endpoint, datetime.now(UTC) - HOUR) == Recovery(0, 1, has_more=False)
    await outbox.send()
    assert [request.id for request in receiver.at("/")] == [started]


async def test_a_range_has_an_end(outbox, receiver):
    tenant = await outbox.tenant()
    early, late = await outbox.happen(tenant, 2)
    now = datetime.now(UTC)
    await outbox.rows("UPDATE events SET created_at = :at WHERE id = :id", at=now - 2 * HOUR, id=early)
    endpoint = await outbox.endpoint(tenant, receiver.url())
    await recover(outbox, tenant, endpoint, now - 3 * HOUR, now - HOUR)
    await outbox.send()
    assert [request.id for request in receiver.requests] == [early]
    with pytest.raises(Invalid, match="later than since"):
        await recover(outbox, tenant, endpoint, now, now)
    assert late not in {request.id for request in receiver.requests}


async def test_a_long_range_is_recovered_by_asking_again(outbox, receiver, monkeypatch):
    monkeypatch.setattr(redelivery, "MOST_RECOVERED", 2)
    tenant = await outbox.tenant()
    await outbox.happen(tenant, 3)
    endpoint = await outbox.endpoint(tenant, receiver.url())
    since = datetime.now(UTC) - HOUR
    assert await recover(outbox, tenant, endpoint, since) == Recovery(0, 2, has_more=True)
    assert await recover(outbox, tenant, endpoint, since) == Recovery(0, 1, has_more=False)
    assert await outbox.states() == ["pending"] * 3


async def test_nothing_is_sent_again_to_an_endpoint_that_is_disabled(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    (event_id,) = await outbox.happen(tenant)
    async with outbox.as_api(tenant) as session:
        await subscriptions.disable_endpoint(session, endpoint.id)
    with pytest.raises(WebhookEndpointDisabled, match="requested"):
        await resend(outbox, tenant, endpoint, event_id)
    with pytest.raises(WebhookEndpointDisabled):
        await recover(outbox, tenant, endpoint, datetime.now(UTC) - HOUR)
    async with outbox.as_api(tenant) as session:
        with pytest.raises(WebhookEndpointDisabled):
            await redelivery.send_test(session, endpoint.id)
    assert await outbox.states() == ["held"]


async def test_a_delivery_is_found_under_its_own_endpoint_only(outbox, receiver):
    tenant = await outbox.tenant()
    (mine, other) = [await outbox.endpoint(tenant, receiver.url()) for _ in range(2)]
    await outbox.happen(tenant)
    (row,) = await outbox.rows("SELECT id FROM webhook_deliveries WHERE endpoint_id = :id", id=mine.id)
    async with outbox.as_api(tenant) as session:
        with pytest.raises(NotFound):
            await redelivery.get_delivery(session, other.id, row.id)
