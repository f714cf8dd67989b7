"""Webhooks that a request names for its own job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import WebhookVerificationError

from core.errors import Conflict, Invalid, WebhookTargetRefused
from core.jobs.events import Verb
from core.webhooks import redelivery, requested, subscriptions
from core.webhooks.requested import RequestedWebhook
from core.webhooks.sender import SendCounts
from tests.integration.webhooks.conftest import LOOPBACK, Outbox
from tests.integration.webhooks.receiver import HANG, answer

DAY = timedelta(days=1)


@pytest.fixture
async def tenant(outbox: Outbox) -> str:
    return await outbox.tenant()


async def secret_of(outbox: Outbox, tenant: str) -> str:
    async with outbox.as_api(tenant) as session:
        return (await requested.secret_of(session, tenant)).secret


async def attached(outbox: Outbox, tenant: str, url: str, *event_types: str) -> str:
    """A job with a webhook; the id of its first event."""
    return (await outbox.happen(tenant, webhook=RequestedWebhook(url, event_types)))[0]


async def endpoints(outbox: Outbox) -> list[Any]:
    return await outbox.rows("SELECT * FROM webhook_endpoints ORDER BY id")


async def test_a_jobs_own_webhook_hears_of_it_and_of_no_other(outbox, receiver, tenant):
    mine = await attached(outbox, tenant, receiver.url("/jobs/1?secret=x"))
    await outbox.happen(tenant)
    later = await outbox.go_on(tenant, mine, Verb.STARTED, Verb.SUCCEEDED)
    assert await outbox.send() == SendCounts(started=3, delivered=3)
    assert {request.path for request in receiver.requests} == {"/jobs/1?secret=x"}
    assert {request.id for request in receiver.requests} == {mine, *later}


async def test_it_is_signed_with_the_tenants_own_secret(outbox, receiver, tenant):
    event = await attached(outbox, tenant, receiver.url())
    await outbox.send()
    (request,) = receiver.requests
    assert request.verified(await secret_of(outbox, tenant))["id"] == event
    with pytest.raises(WebhookVerificationError):
        request.verified(await secret_of(outbox, await outbox.tenant("rival")))


async def test_it_hears_of_the_types_it_asked_for(outbox, receiver, tenant):
    event = await attached(outbox, tenant, receiver.url(), "generation.succeeded", "generation.failed")
    _, done = await outbox.go_on(tenant, event, Verb.STARTED, Verb.SUCCEEDED)
    await outbox.send()
    assert [request.id for request in receiver.requests] == [done]


async def test_endpoints_hear_of_the_job_as_well(outbox, receiver, tenant):
    await outbox.endpoint(tenant, receiver.url("/all"))
    await attached(outbox, tenant, receiver.url("/mine"))
    await outbox.send()
    assert sorted(request.path for request in receiver.requests) == ["/all", "/mine"]


async def test_webhooks_to_one_host_share_an_endpoint_and_its_delivery_log(outbox, receiver, tenant):
    for number in range(3):
        await attached(outbox, tenant, receiver.url(f"/jobs/{number}"))
    (endpoint,) = await endpoints(outbox)
    assert (endpoint.on_request, endpoint.url) == (True, receiver.url("/"))
    await outbox.send()
    assert {request.path for request in receiver.requests} == {f"/jobs/{number}" for number in range(3)}
    async with outbox.as_api(tenant) as session:
        log = await redelivery.list_deliveries(session, endpoint.id, state=None, after=None, before=None, limit=10)
    assert [delivery.state for delivery in log.rows] == ["delivered"] * 3


async def test_what_failed_is_repeated_at_its_own_address(outbox, receiver, tenant):
    receiver.will_answer(answer(500), answer(204), path="/jobs/1")
    event = await attached(outbox, tenant, receiver.url("/jobs/1"))
    assert await outbox.send() == SendCounts(started=1, retried=1)
    assert await outbox.send(ahead=timedelta(seconds=10)) == SendCounts(started=1, delivered=1)
    assert [attempt.status for attempt in await outbox.attempts(event)] == [500, 204]


async def test_an_address_that_is_gone_ends_its_own_delivery_and_nobody_elses(outbox, receiver, tenant):
    receiver.will_answer(answer(410), path="/gone")
    event = await attached(outbox, tenant, receiver.url("/gone"))
    assert await outbox.send() == SendCounts(started=1, failed=1)
    assert (await outbox.delivery(event)).state == "failed"
    await attached(outbox, tenant, receiver.url("/there"))
    assert await outbox.send() == SendCounts(started=1, delivered=1)


async def test_a_host_that_hangs_holds_no_more_places_however_many_jobs_name_it(outbox, receiver, tenant):
    for number in range(20):
        receiver.will_answer(HANG, path=f"/{number}")
        await attached(outbox, tenant, receiver.url(f"/{number}"))
    async with outbox.sender() as sender:
        assert (await sender.run_once()).started == 4  # as many as an endpoint may have


async def test_a_host_is_checked_again_when_something_is_sent_there(outbox, receiver, tenant):
    event = await attached(outbox, tenant, receiver.url("/", host="localhost"))

    async def rebound(host: str, port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.1"]

    assert await outbox.send(resolve=rebound) == SendCounts(started=1, retried=1)
    assert [attempt.status for attempt in await outbox.attempts(event)] == [None]
    assert receiver.requests == []


async def test_a_secret_is_replaced_with_both_signing_for_a_day(outbox, receiver, tenant):
    old = await secret_of(outbox, tenant)
    async with outbox.as_api(tenant) as session:
        new = (await requested.rotate_secret(session, tenant, overlap=DAY)).secret
    for ahead, old_works in ((timedelta(0), True), (timedelta(hours=25), False)):
        await attached(outbox, tenant, receiver.url())
        await outbox.send(ahead=ahead)
        signatures = receiver.requests[-1].headers["webhook-signature"].split(" ")
        assert len(signatures) == 1 + old_works
    assert old != new
    assert (await outbox.release(ahead=timedelta(hours=25))).forgotten == 1
    assert await outbox.rows("SELECT 1 FROM tenants WHERE previous_webhook_secret IS NOT NULL") == []


async def test_a_secret_that_leaked_is_void_at_once(outbox, receiver, tenant):
    old = await secret_of(outbox, tenant)
    async with outbox.as_api(tenant) as session:
        await requested.rotate_secret(session, tenant, overlap=timedelta(0))
    await attached(outbox, tenant, receiver.url())
    await outbox.send()
    with pytest.raises(WebhookVerificationError):
        receiver.requests[0].verified(old)


@pytest.mark.parametrize(
    ("wanted", "error", "param"),
    [
        (RequestedWebhook("http://10.0.0.1/"), WebhookTargetRefused, "webhook.url"),
        (RequestedWebhook("ftp://example.com/"), WebhookTargetRefused, "webhook.url"),
        (RequestedWebhook("https://example.com/", ["generation.dreamt"]), Invalid, "webhook.event_types"),
    ],
    ids=["private", "scheme", "type"],
)
async def test_what_can_never_be_sent_is_refused_with_the_request(outbox, tenant, wanted, error, param):
    with pytest.raises(error) as caught:
        await outbox.happen(tenant, webhook=wanted)
    assert caught.value.param == param
    assert await outbox.rows("SELECT 1 FROM jobs") == await endpoints(outbox) == []


async def test_only_so_many_hosts_are_named(outbox, tenant, monkeypatch):
    monkeypatch.setattr(requested, "MOST_HOSTS", 2)
    for host in ("a.example.com", "b.example.com", "a.example.com"):
        await attached(outbox, tenant, f"https://{host}/x")
    with pytest.raises(Conflict):
        await attached(outbox, tenant, "https://c.example.com/x")


async def test_the_endpoint_of_a_host_is_nobodys_to_change(outbox, tenant):
    await attached(outbox, tenant, "https://a.example.com/x")
    (endpoint,) = await endpoints(outbox)
    async with outbox.as_api(tenant) as session:
        with pytest.raises(Conflict):
            await subscriptions.update_endpoint(session, endpoint.id, policy=LOOPBACK, name="mine")
        with pytest.raises(Conflict):
            await subscriptions.rotate_secret(session, endpoint.id, overlap=DAY)
        with pytest.raises(Conflict):
            await redelivery.send_test(session, endpoint.id)


async def test_a_recovery_tells_a_host_of_no_job_that_did_not_name_it(outbox, tenant):
    await attached(outbox, tenant, "https://a.example.com/x")
    await outbox.happen(tenant, 3)
    (endpoint,) = await endpoints(outbox)
    async with outbox.as_api(tenant) as session:
        since = await session.scalar(text("SELECT lockstep_now() - interval '1 hour'"))
        recovery = await redelivery.recover(session, endpoint.id, since=since, until=None)
    assert recovery.added == 0


async def test_a_host_whose_endpoint_was_deleted_begins_anew(outbox, receiver, tenant):
    await attached(outbox, tenant, receiver.url("/old"))
    (endpoint,) = await endpoints(outbox)
    async with outbox.as_api(tenant) as session:
        await subscriptions.delete_endpoint(session, endpoint.id)
    await outbox.send()
    await attached(outbox, tenant, receiver.url("/new"))
    await outbox.send()
    assert [request.path for request in receiver.requests] == ["/new"]
