"""Endpoints that want a job's events in order: each is sent when the one before it has ended."""

from __future__ import annotations

from datetime import timedelta

from core.jobs.events import Verb
from core.webhooks import subscriptions
from core.webhooks.releasing import ReleaseCounts
from core.webhooks.schedule import MAX_ATTEMPTS
from core.webhooks.sender import SendCounts
from tests.integration.webhooks.conftest import SOON, send
from tests.integration.webhooks.receiver import HANG, answer

VERBS = (Verb.STARTED, Verb.PROGRESS, Verb.SUCCEEDED)


async def passes(sender, count):
    for _ in range(count):
        await send(sender)


async def test_a_jobs_events_arrive_one_after_the_other_and_jobs_beside_each_other(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(), in_order=True)
    first, second = await outbox.happen(tenant, 2)
    rest = [await outbox.go_on(tenant, event_id, *VERBS) for event_id in (first, second)]
    async with outbox.sender() as sender:
        assert await send(sender) == SendCounts(started=2, delivered=2)
        await passes(sender, 3)
    ids = [request.id for request in receiver.requests]
    for head, followers in zip((first, second), rest, strict=True):
        assert [event_id for event_id in ids if event_id in {head, *followers}] == [head, *followers]
    assert len(ids) == 8


async def test_without_it_nothing_waits(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (first,) = await outbox.happen(tenant)
    await outbox.go_on(tenant, first, *VERBS)
    assert await outbox.send() == SendCounts(started=4, delivered=4)


async def test_what_follows_a_failed_one_waits_for_its_next_attempt(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(), in_order=True)
    (first,) = await outbox.happen(tenant)
    (second,) = await outbox.go_on(tenant, first, Verb.STARTED)
    receiver.will_answer(answer(500), answer(204))
    async with outbox.sender() as sender:
        await passes(sender, 3)
    assert [request.id for request in receiver.requests] == [first]
    async with outbox.sender(ahead=timedelta(seconds=6)) as sender:
        await passes(sender, 2)
    assert [request.id for request in receiver.requests] == [first, first, second]


async def test_what_follows_one_that_was_given_up_is_sent(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(), in_order=True)
    (first,) = await outbox.happen(tenant)
    (second,) = await outbox.go_on(tenant, first, Verb.STARTED)
    await outbox.rows(
        "UPDATE webhook_deliveries SET attempt = :count WHERE event_id = :id", count=MAX_ATTEMPTS - 1, id=first
    )
    receiver.will_answer(answer(500), answer(204))
    async with outbox.sender() as sender:
        assert await send(sender) == SendCounts(started=1, failed=1)
        assert await send(sender) == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [first, second]


async def test_what_waits_is_put_off_and_called_when_its_turn_comes(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(), in_order=True)
    (first,) = await outbox.happen(tenant)
    second, third = await outbox.go_on(tenant, first, Verb.STARTED, Verb.SUCCEEDED)
    receiver.will_answer(HANG)
    async with outbox.sender() as sender:
        await sender.run_once()
        await receiver.has(1)
        assert await outbox.release() == ReleaseCounts(put_off=2)
        assert await outbox.release() == ReleaseCounts()
        receiver.release()
        assert await sender.finish(SOON) == SendCounts(delivered=1)
        assert await send(sender) == SendCounts(started=1, delivered=1)
        assert await send(sender) == SendCounts(started=1, delivered=1)
    assert [request.id for request in receiver.requests] == [first, second, third]


async def test_order_survives_being_disabled(outbox, receiver, monkeypatch):
    monkeypatch.setattr("core.webhooks.releasing._BATCH", 1)
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued", "generation.started", in_order=True)
    async with outbox.as_api(tenant) as session:
        await subscriptions.disable_endpoint(session, endpoint.id)
    (first,) = await outbox.happen(tenant)
    (second,) = await outbox.go_on(tenant, first, Verb.STARTED)
    await outbox.rows(
        "UPDATE webhook_deliveries SET created_at = created_at - interval '1 h' WHERE event_id = :id", id=second
    )
    async with outbox.as_api(tenant) as session:
        await subscriptions.enable_endpoint(session, endpoint.id)
    assert (await outbox.release()).released == 1
    assert await outbox.send() == SendCounts()  # the later one is there, the earlier one is still held
    await outbox.release()
    async with outbox.sender() as sender:
        await passes(sender, 2)
    assert [request.id for request in receiver.requests] == [first, second]
