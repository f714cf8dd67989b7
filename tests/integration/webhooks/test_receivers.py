"""Receivers as they are found: whatever they do, what was promised to them is delivered, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from core.webhooks import subscriptions
from core.webhooks.schedule import DELAYS
from core.webhooks.sender import SendCounts
from tests.integration.webhooks.conftest import LOOPBACK
from tests.integration.webhooks.receiver import HANG, Drip, answer, receiving

SHORT = timedelta(seconds=0.3)
FIRST_RETRY = timedelta(seconds=6)
HOUR = timedelta(hours=1)
DRIPPED = [b"HTTP/1.1 200 OK\r\nx-slow: ", b"HTTP/1.1 "]


@pytest.mark.parametrize("misbehaving", [HANG, *map(Drip, DRIPPED)], ids=["hangs", "drips headers", "drips a status"])
async def test_one_that_never_finishes_is_cut_off_and_gets_its_event_when_it_has_come_to_its_senses(
    outbox, receiver, misbehaving
):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    receiver.will_answer(misbehaving, answer(204))
    assert await outbox.send(deadline=SHORT) == SendCounts(started=1, retried=1)
    assert await outbox.send(ahead=FIRST_RETRY, deadline=SHORT) == SendCounts(started=1, delivered=1)
    cut_off, accepted = await outbox.attempts(event_id)
    assert (cut_off.status, cut_off.error) == (None, "No answer within 0.3 s.")
    assert 300 <= cut_off.duration_ms < 3000
    assert accepted.status == 204
    for request in receiver.requests:
        assert request.verified(endpoint.secret)["id"] == event_id


async def test_one_that_accepts_and_then_drips_its_body_has_accepted(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    await outbox.happen(tenant)
    receiver.will_answer(Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"))
    assert await outbox.send(deadline=timedelta(seconds=1)) == SendCounts(started=1, delivered=1)


async def test_one_that_redirects_is_not_followed_and_gets_its_event_once_it_answers_itself(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url())
    (event_id,) = await outbox.happen(tenant)
    async with receiving() as elsewhere:
        receiver.will_answer(*(answer(code, f"location: {elsewhere.url()}") for code in (301, 307)), answer(204))
        assert await outbox.send() == SendCounts(started=1, retried=1)
        assert await outbox.send(ahead=FIRST_RETRY) == SendCounts(started=1, retried=1)
        assert await outbox.send(ahead=FIRST_RETRY + HOUR) == SendCounts(started=1, delivered=1)
        assert elsewhere.requests == []
    assert [row.status for row in await outbox.attempts(event_id)] == [301, 307, 204]


async def test_one_whose_name_comes_to_mean_a_private_address_is_not_reached_there(outbox, receiver):
    """The other address is this machine's as well, so it would answer, were it asked."""
    lookups: list[str] = []

    def name_means(*answers: str):
        async def resolve(host: str, port: int) -> Sequence[str]:
            lookups.append(host)
            return answers

        return resolve

    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(host="rebinding.example.com"))
    (event_id,) = await outbox.happen(tenant)
    mapped = name_means("::ffff:10.0.0.1")
    for count, meaning in enumerate((name_means("127.0.0.1", "10.0.0.1"), name_means("169.254.169.254"), mapped)):
        sent = await outbox.send(ahead=count * HOUR, resolve=meaning)
        assert sent == SendCounts(started=1, retried=1)
    assert receiver.requests == []
    assert await outbox.send(ahead=6 * HOUR, resolve=name_means("127.0.0.1")) == SendCounts(started=1, delivered=1)
    *refused, accepted = await outbox.attempts(event_id)
    assert [row.status for row in refused] == [None] * 3
    assert all("443" in row.error or "not public" in row.error for row in refused)
    assert (accepted.status, lookups) == (204, ["rebinding.example.com"] * 4)


async def test_one_that_is_gone_hears_no_more(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    receiver.will_answer(answer(410))
    await outbox.happen(tenant)
    assert await outbox.send() == SendCounts(started=1, held=1)
    await outbox.happen(tenant, 3)
    for days in (0, 1, 10, 100):
        assert await outbox.send(ahead=timedelta(days=days)) == SendCounts()
    assert len(receiver.requests) == 1
    async with outbox.as_api(tenant) as session:
        assert (await subscriptions.get_endpoint(session, endpoint.id)).disabled_reason == "gone"


async def test_one_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url("/busy"))
    await outbox.endpoint(tenant, receiver.url("/idle"))
    receiver.will_answer(answer(429, "retry-after: 600"), answer(204), path="/busy")
    first = await outbox.happen(tenant)
    assert await outbox.send() == SendCounts(started=2, delivered=1, retried=1)
    rest = await outbox.happen(tenant, 2)
    assert await outbox.send(ahead=timedelta(seconds=590)) == SendCounts(started=2, delivered=2)
    assert len(receiver.at("/busy")) == 1
    async with outbox.sender(ahead=timedelta(seconds=610)) as sender:
        for _ in range(3):
            await sender.run_once()
            await sender.finish(timedelta(seconds=10))
    assert {request.id for request in receiver.at("/busy")} == {*first, *rest}
    assert len(receiver.at("/busy")) == 4


async def test_one_that_moved_is_not_kept_waiting_by_what_the_old_address_asked_for(outbox, receiver):
    tenant = await outbox.tenant()
    endpoint = await outbox.endpoint(tenant, receiver.url("/busy"))
    receiver.will_answer(answer(503, "retry-after: 86400"), path="/busy")
    await outbox.happen(tenant)
    await outbox.send()
    await outbox.happen(tenant)
    async with outbox.as_api(tenant) as session:
        await subscriptions.update_endpoint(session, endpoint.id, policy=LOOPBACK, url=receiver.url("/roomy"))
    assert await outbox.send() == SendCounts(started=1, delivered=1)


async def test_one_that_fails_for_a_day_gets_everything_afterwards_and_is_asked_as_often_as_promised(outbox, receiver):
    tenant = await outbox.tenant()
    await outbox.endpoint(tenant, receiver.url(), "generation.queued")
    receiver.will_answer(answer(500))
    owed = await outbox.happen(tenant, 3)
    at, day = timedelta(0), timedelta(days=1)
    for delay in DELAYS:
        await _drain(outbox, at)
        at += delay + timedelta(seconds=5)
        if at >= day:
            break
    tried = len(receiver.requests)
    assert tried == 3 * 7  # after 0, 5 s, 5 min, 35 min, 2.6 h, 7.6 h, 17.6 h
    receiver.will_answer(answer(204))
    await _drain(outbox, at)
    assert [request.id for request in receiver.requests[tried:]] != []
    assert sorted(request.id for request in receiver.requests[tried:]) == sorted(owed)
    assert await outbox.states() == ["delivered"] * 3
    await _drain(outbox, at + timedelta(days=30))
    assert len(receiver.requests) == tried + 3


async def _drain(outbox, ahead: timedelta) -> None:
    async with outbox.sender(ahead=ahead) as sender:
        while (await sender.run_once()).started:
            await sender.finish(timedelta(seconds=10))
