from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from core.webhooks.schedule import DELAYS, MAX_ATTEMPTS
from core.webhooks.sender import SendCounts, SendLimits
from core.webhooks.target_policy import TargetPolicy
from tests.integration.webhooks.conftest import SOON, Outbox, send
from tests.integration.webhooks.receiver import HANG, answer

AFTER_THE_LEASE = timedelta(seconds=31)


async def send_ahead(outbox: Outbox, ahead: timedelta) -> SendCounts:
    return await outbox.send(ahead=ahead)


async def test_an_event_is_delivered_once_and_verifies(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    async with outbox.sender() as sender:
        assert await send(sender) == SendCounts(started=1, delivered=1)
        assert await send(sender) == SendCounts()
    (request,) = receiver.requests
    body = request.verified(endpoint.secret)
    assert (body["id"], body["object"], body["type"], body["sequence"]) == (event_id, "event", "generation.queued", 1)
    assert body["data"]["state"] == "queued"
    assert datetime.fromisoformat(body["timestamp"]).timestamp() == pytest.approx(body["created_at"], abs=1)
    assert request.id == event_id
    delivery = await outbox.delivery(event_id)
    assert (delivery.state, delivery.attempt, delivery.next_attempt_at) == ("delivered", 1, None)
    assert delivery.delivered_at is not None
    assert [(row.attempt, row.status, row.error) for row in await outbox.attempts(event_id)] == [(1, 204, None)]


async def test_a_failed_attempt_is_repeated_with_the_same_id_and_a_fresh_signature(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(answer(500), answer(204))
    assert await send_ahead(outbox, timedelta(0)) == SendCounts(started=1, retried=1)
    assert await send_ahead(outbox, timedelta(seconds=3)) == SendCounts()
    assert await send_ahead(outbox, timedelta(seconds=6)) == SendCounts(started=1, delivered=1)
    first, second = receiver.requests
    assert first.id == second.id == event_id
    assert first.body == second.body
    for request in receiver.requests:
        request.verified(endpoint.secret)
    assert [row.status for row in await outbox.attempts(event_id)] == [500, 204]


async def test_after_ten_attempts_over_three_days_it_is_given_up(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(answer(500))
    ahead = timedelta(0)
    for delay in DELAYS:
        assert await send_ahead(outbox, ahead) == SendCounts(started=1, retried=1)
        ahead += delay + timedelta(seconds=5)
    assert await send_ahead(outbox, ahead) == SendCounts(started=1, failed=1)
    assert await send_ahead(outbox, ahead + timedelta(days=30)) == SendCounts()
    assert len(receiver.requests) == MAX_ATTEMPTS
    delivery = await outbox.delivery(event_id)
    assert (delivery.state, delivery.attempt, delivery.next_attempt_at) == ("failed", MAX_ATTEMPTS, None)


async def test_retry_after_postpones_the_next_attempt(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant)
    receiver.will_answer(answer(503, "retry-after: 600"))
    await send_ahead(outbox, timedelta(0))
    assert await send_ahead(outbox, timedelta(seconds=590)) == SendCounts()
    assert await send_ahead(outbox, timedelta(seconds=610)) == SendCounts(started=1, retried=1)


async def test_what_is_owed_to_a_deleted_endpoint_is_not_sent(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant, 6)
    await outbox.rows(
        "UPDATE webhook_endpoints SET deleted_at = lockstep_now() WHERE id = :id RETURNING 1", id=endpoint.id
    )
    async with outbox.sender() as sender:
        assert await send(sender) == SendCounts()
    assert receiver.requests == []
    assert await outbox.states() == ["failed"] * 6


async def test_a_redirect_is_a_failure_that_says_where_it_led(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(answer(301, "location: https://new.example.com/"))
    assert await send_ahead(outbox, timedelta(0)) == SendCounts(started=1, retried=1)
    (attempt,) = await outbox.attempts(event_id)
    assert attempt.status == 301
    assert "https://new.example.com/" in attempt.error


async def test_a_private_address_is_refused_at_every_delivery_whatever_was_allowed_before(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    async with outbox.sender(policy=TargetPolicy()) as sender:
        assert await send(sender) == SendCounts(started=1, retried=1)
    assert receiver.requests == []
    (attempt,) = await outbox.attempts(event_id)
    assert (attempt.status, attempt.error) == (None, "The webhook URL must use https on port 443.")


async def test_a_sender_killed_before_it_wrote_the_result_delivers_again_with_the_same_id(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(HANG, answer(204))
    async with outbox.sender() as killed:
        await killed.run_once()
        await receiver.has(1)
    assert (await outbox.delivery(event_id)).lease_token is not None
    assert await send_ahead(outbox, timedelta(seconds=10)) == SendCounts()
    assert await send_ahead(outbox, AFTER_THE_LEASE) == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [event_id, event_id]
    assert [row.status for row in await outbox.attempts(event_id)] == [204]


async def test_an_answer_that_comes_after_the_lease_was_lost_changes_nothing(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(HANG, answer(500))
    async with outbox.sender() as slow:
        await slow.run_once()
        await receiver.has(1)
        assert await send_ahead(outbox, AFTER_THE_LEASE) == SendCounts(started=1, retried=1)
        receiver.release()
        assert await slow.finish(SOON) == SendCounts()
    assert (await outbox.delivery(event_id)).state == "pending"
    assert [row.status for row in await outbox.attempts(event_id)] == [500]


async def test_a_hanging_endpoint_holds_its_own_places_and_delays_nobody(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url("/hanging"))
    await outbox.endpoint(tenant, receiver.url("/healthy"))
    receiver.will_answer(HANG, path="/hanging")
    await outbox.happen(tenant, 20)
    async with outbox.sender() as sender, asyncio.timeout(10):
        while len(receiver.at("/healthy")) < 20:
            await sender.run_once()
            await sender.rest(timedelta(seconds=60))
    assert len(receiver.at("/hanging")) == 4


async def test_a_tenant_with_many_hanging_endpoints_leaves_room_for_the_others(outbox, receiver):
    greedy, modest = await outbox.tenant("greedy"), await outbox.tenant("modest")
    receiver.will_answer(HANG, path="/hanging")
    for _ in range(5):
        await outbox.endpoint(greedy, receiver.url("/hanging"))
    await outbox.endpoint(modest, receiver.url("/healthy"))
    await outbox.happen(greedy, 4)
    await outbox.happen(modest, 2)
    async with outbox.sender(limits=SendLimits(in_all=10, per_tenant=8, per_endpoint=2)) as sender:
        assert (await sender.run_once()).started == 10
        await receiver.has(2, "/healthy")
        assert len(await receiver.has(8, "/hanging")) == 8
        await sender.rest(timedelta(seconds=5))
        assert (await sender.run_once()).started == 0


async def test_endpoints_that_fail_hold_a_quarter_of_their_tenants_places(outbox, receiver):
    tenant = await outbox.tenant()
    for number in range(6):
        await outbox.endpoint(tenant, receiver.url(f"/{number}"))
        receiver.will_answer(HANG, path=f"/{number}")
    await outbox.rows("UPDATE webhook_endpoints SET failing_since = lockstep_now() - interval '1 minute'")
    await outbox.happen(tenant, 3)
    await outbox.endpoint(tenant, receiver.url("/healthy"))
    await outbox.happen(tenant, 12)
    async with outbox.sender(limits=SendLimits(per_tenant=16, per_endpoint=12)) as sender:
        await sender.run_once()
        await receiver.has(12, "/healthy")
        assert sum(len(receiver.at(f"/{number}")) for number in range(6)) == 4
        await sender.rest(timedelta(seconds=5))
        assert (await sender.run_once()).started == 0


async def test_endpoints_of_many_tenants_that_fail_leave_three_quarters_of_all_places(outbox, receiver):
    receiver.will_answer(HANG, path="/hanging")
    for number in range(4):
        tenant = await outbox.tenant(f"dead {number}")
        await outbox.endpoint(tenant, receiver.url("/hanging"))
        await outbox.happen(tenant, 2)
    await outbox.rows("UPDATE webhook_endpoints SET failing_since = lockstep_now()")
    healthy = await outbox.tenant("healthy")
    await outbox.endpoint(healthy, receiver.url("/healthy"))
    await outbox.happen(healthy, 6)
    async with outbox.sender(limits=SendLimits(in_all=8, per_tenant=8, per_endpoint=8)) as sender:
        assert (await sender.run_once()).started == 8
        await receiver.has(6, "/healthy")
        assert len(await receiver.has(2, "/hanging")) == 2


async def test_an_endpoint_that_accepts_again_has_all_its_places_again(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.rows("UPDATE webhook_endpoints SET failing_since = lockstep_now()")
    await outbox.happen(tenant, 5)
    async with outbox.sender() as sender:
        assert await send(sender) == SendCounts(started=1, delivered=1)
        assert await send(sender) == SendCounts(started=4, delivered=4)


async def test_a_backlog_flows_without_waiting_for_the_next_look(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant, 60)
    look = timedelta(seconds=60)
    async with outbox.sender() as sender, asyncio.timeout(30):
        while len(receiver.requests) < 60:
            await sender.run_once()
            await sender.rest(look)
    assert len({request.id for request in receiver.requests}) == 60


async def test_while_events_come_more_are_looked_for_without_waiting_for_the_next_look(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    receiver.will_answer(HANG)
    await outbox.happen(tenant)
    async with outbox.sender() as sender, asyncio.timeout(20):
        await sender.run_once()
        await outbox.happen(tenant)
        await sender.rest(timedelta(seconds=60))  # no answer comes that would end it
        assert (await sender.run_once()).started == 1


async def test_two_senders_never_send_the_same_delivery(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant, 40)
    async with outbox.sender() as one, outbox.sender() as two:
        for _ in range(10):
            await asyncio.gather(send(one), send(two))
    assert len(receiver.requests) == len({request.id for request in receiver.requests}) == 40
    assert set(await outbox.states()) == {"delivered"}


async def test_a_database_that_is_away_when_the_answer_comes_costs_a_repetition_and_nothing_else(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(HANG)
    async with outbox.sender() as sender:
        await sender.run_once()
        await receiver.has(1)
        await outbox.rows("ALTER TABLE webhook_attempts RENAME TO away")
        receiver.release()
        assert await sender.finish(SOON) == SendCounts()
        await outbox.rows("ALTER TABLE away RENAME TO webhook_attempts")
    assert await send_ahead(outbox, AFTER_THE_LEASE) == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [event_id, event_id]
