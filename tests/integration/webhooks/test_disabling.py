"""Endpoints that are disabled, by their owner or by how they answer, and enabled again: nothing is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.webhooks import subscriptions
from core.webhooks.releasing import ReleaseCounts
from core.webhooks.schedule import FAILING_FOR
from core.webhooks.sender import SendCounts, SendLimits
from tests.integration.webhooks.conftest import SOON, send
from tests.integration.webhooks.receiver import HANG, answer

HOUR = timedelta(hours=1)


async def disable(outbox, tenant, endpoint_id):
    async with outbox.as_api(tenant) as session:
        return await subscriptions.disable_endpoint(session, endpoint_id)


async def enable(outbox, tenant, endpoint_id):
    async with outbox.as_api(tenant) as session:
        return await subscriptions.enable_endpoint(session, endpoint_id)


async def shown(outbox, tenant, endpoint_id):
    async with outbox.as_api(tenant) as session:
        return await subscriptions.get_endpoint(session, endpoint_id)


async def test_what_was_owed_and_what_happens_while_an_endpoint_is_disabled_arrives_once_it_is_enabled(
    outbox, receiver
):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    owed = await outbox.happen(tenant, 3)
    assert (await disable(outbox, tenant, endpoint.id)).disabled_reason == "requested"
    meanwhile = await outbox.happen(tenant, 3)
    assert await outbox.send(ahead=HOUR) == SendCounts()
    assert await outbox.release(ahead=HOUR) == ReleaseCounts()
    assert set(await outbox.states()) == {"held"}
    assert receiver.requests == []
    assert (await enable(outbox, tenant, endpoint.id)).disabled_at is None
    assert (await outbox.release()).released == 6
    async with outbox.sender() as sender:
        for _ in range(2):
            await send(sender)
    assert {request.id for request in receiver.requests} == {*owed, *meanwhile}
    assert set(await outbox.states()) == {"delivered"}


async def test_an_answer_that_is_under_way_when_its_endpoint_is_disabled_still_counts(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    await outbox.happen(tenant)
    receiver.will_answer(HANG)
    async with outbox.sender() as sender:
        await sender.run_once()
        await receiver.has(1)
        await disable(outbox, tenant, endpoint.id)
        receiver.release()
        assert await sender.finish(SOON) == SendCounts(delivered=1)
    assert await outbox.states() == ["delivered"]


async def test_what_was_claimed_by_a_sender_that_died_is_held_when_it_comes_due(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    await outbox.happen(tenant, 2)
    receiver.will_answer(HANG)
    async with outbox.sender() as killed:
        await killed.run_once()
        await receiver.has(2)
    await disable(outbox, tenant, endpoint.id)
    assert await outbox.send(ahead=timedelta(seconds=31)) == SendCounts()
    assert await outbox.states() == ["held"] * 2
    assert len(receiver.requests) == 2


async def test_an_event_that_was_held_while_its_endpoint_was_being_enabled_is_not_stranded(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant)
    await outbox.rows("UPDATE webhook_deliveries SET state = 'held', next_attempt_at = NULL")
    assert (await outbox.release()).released == 1
    assert await outbox.send() == SendCounts(started=1, delivered=1)


async def test_held_deliveries_are_released_in_batches_the_oldest_first(outbox, receiver, monkeypatch):
    monkeypatch.setattr("core.webhooks.releasing._BATCH", 2)
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    await disable(outbox, tenant, endpoint.id)
    ids = await outbox.happen(tenant, 3)
    await enable(outbox, tenant, endpoint.id)
    assert (await outbox.release()).released == 2
    assert [(await outbox.delivery(event_id)).state for event_id in ids] == ["pending", "pending", "held"]
    assert (await outbox.release()).released == 1


async def test_gone_disables_the_endpoint_at_once_and_holds_what_is_owed_to_it(outbox, receiver):
    tenant = await outbox.tenant()
    gone = await outbox.endpoint(tenant, receiver.url("/gone"), "generation.queued")
    await outbox.endpoint(tenant, receiver.url("/here"), "generation.queued")
    receiver.will_answer(answer(410), answer(204), path="/gone")
    await outbox.happen(tenant, 6)
    async with outbox.sender(limits=SendLimits(per_endpoint=1)) as sender:
        assert await send(sender) == SendCounts(started=2, delivered=1, held=1)
        for _ in range(5):
            await send(sender)
    assert len(receiver.at("/gone")) == 1
    assert sorted(await outbox.states()) == ["delivered"] * 6 + ["held"] * 6
    assert (await shown(outbox, tenant, gone.id)).disabled_reason == "gone"
    await enable(outbox, tenant, gone.id)
    await outbox.release()
    async with outbox.sender() as sender:
        for _ in range(2):
            await send(sender)
    assert len({request.id for request in receiver.at("/gone")}) == 6
    assert set(await outbox.states()) == {"delivered"}


async def test_an_endpoint_that_accepts_nothing_for_five_days_is_disabled_and_others_are_told(outbox, receiver):
    tenant = await outbox.tenant()
    dead = await outbox.endpoint(tenant, receiver.url("/dead"), "generation.queued")
    watch = await outbox.endpoint(tenant, receiver.url("/watch"), "webhook_endpoint.disabled")
    receiver.will_answer(answer(500), path="/dead")
    await outbox.happen(tenant)
    await outbox.send()
    failing_since = (await shown(outbox, tenant, dead.id)).failing_since
    await outbox.send(ahead=FAILING_FOR - HOUR)
    assert (await shown(outbox, tenant, dead.id)).disabled_at is None
    (later,) = await outbox.happen(tenant)
    await outbox.send(ahead=FAILING_FOR + HOUR)
    endpoint = await shown(outbox, tenant, dead.id)
    assert (endpoint.disabled_reason, endpoint.failing_since) == ("failing", failing_since)
    assert (await outbox.delivery(later)).state == "held"
    await outbox.send(ahead=FAILING_FOR + 2 * HOUR)
    (told,) = receiver.at("/watch")
    data = told.verified(watch.secret)["data"]
    assert (data["id"], data["object"], data["disabled_reason"]) == (dead.id, "webhook_endpoint", "failing")


async def test_one_acceptance_in_between_keeps_an_endpoint_enabled(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    receiver.will_answer(answer(500), answer(204), answer(500), answer(500))
    for ahead in (timedelta(0), FAILING_FOR / 2, FAILING_FOR + HOUR):
        await outbox.happen(tenant)
        await outbox.send(ahead=ahead, limits=SendLimits(per_endpoint=1))
    assert len(receiver.requests) == 3
    found = await shown(outbox, tenant, endpoint.id)
    assert (found.disabled_at, found.failing_since is not None) == (None, True)


async def test_disabling_twice_tells_once_and_keeps_the_first_reason(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    first = await disable(outbox, tenant, endpoint.id)
    assert (await disable(outbox, tenant, endpoint.id)).disabled_at == first.disabled_at
    told = await outbox.rows("SELECT type, sequence, job_id FROM events")
    assert [tuple(row) for row in told] == [("webhook_endpoint.disabled", 1, None)]


@pytest.mark.parametrize("state", ["delivered", "failed"])
async def test_what_has_ended_is_neither_held_nor_sent_again(outbox, receiver, state):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    await outbox.happen(tenant)
    await outbox.rows("UPDATE webhook_deliveries SET state = :state, next_attempt_at = NULL", state=state)
    await disable(outbox, tenant, endpoint.id)
    await enable(outbox, tenant, endpoint.id)
    assert await outbox.release() == ReleaseCounts()
    assert await outbox.states() == [state]
