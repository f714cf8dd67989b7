from __future__ import annotations

import pytest

from core.errors import Invalid, NotFound, WebhookTargetRefused
from core.events.types import ALL_TYPES
from core.webhooks import subscriptions
from core.webhooks.target_policy import TargetPolicy

PUBLIC_ONLY = TargetPolicy()
URL = "https://hooks.example.com/lockstep"


async def create(outbox, tenant, *, url=URL, name="hook", event_types=()):
    async with outbox.as_api(tenant) as session:
        return await subscriptions.create_endpoint(
            session, tenant, url=url, name=name, event_types=event_types, policy=PUBLIC_ONLY
        )


async def page(outbox, tenant, *, after=None, before=None, limit=10):
    async with outbox.as_api(tenant) as session:
        return await subscriptions.list_endpoints(session, after=after, before=before, limit=limit)


async def test_a_new_endpoint_comes_with_its_secret(outbox):
    tenant = await outbox.tenant()
    endpoint, secret = await create(outbox, tenant, event_types=["training.succeeded", "training.succeeded"])
    assert secret.startswith("whsec_")
    assert endpoint.id.startswith("we_")
    assert (endpoint.url, endpoint.event_types, endpoint.deleted_at) == (URL, ["training.succeeded"], None)
    assert endpoint.created_at is not None


async def test_two_endpoints_never_share_a_secret(outbox):
    tenant = await outbox.tenant()
    (_, one), (_, two) = await create(outbox, tenant), await create(outbox, tenant)
    assert one != two


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://hooks.example.com/", "https://[::1]/", "nowhere"])
async def test_an_endpoint_that_could_not_be_delivered_to_is_refused_and_not_kept(outbox, url):
    tenant = await outbox.tenant()
    with pytest.raises(WebhookTargetRefused):
        await create(outbox, tenant, url=url)
    endpoint, _ = await create(outbox, tenant)
    async with outbox.as_api(tenant) as session:
        with pytest.raises(WebhookTargetRefused):
            await subscriptions.update_endpoint(session, endpoint.id, policy=PUBLIC_ONLY, url=url)
    assert [row.url for row in (await page(outbox, tenant)).rows] == [URL]


async def test_an_unknown_event_type_is_named(outbox):
    tenant = await outbox.tenant()
    with pytest.raises(Invalid, match=r"training\.done") as refused:
        await create(outbox, tenant, event_types=["training.succeeded", "training.done"])
    assert refused.value.param == "event_types"


async def test_every_event_type_can_be_asked_for(outbox):
    endpoint, _ = await create(outbox, await outbox.tenant(), event_types=ALL_TYPES)
    assert set(endpoint.event_types) == set(ALL_TYPES)


async def test_an_update_changes_what_is_given_and_never_the_secret(outbox):
    tenant = await outbox.tenant()
    endpoint, secret = await create(outbox, tenant, event_types=["training.failed"])
    async with outbox.as_api(tenant) as session:
        await subscriptions.update_endpoint(session, endpoint.id, policy=PUBLIC_ONLY, name="renamed")
    async with outbox.as_api(tenant) as session:
        await subscriptions.update_endpoint(session, endpoint.id, policy=PUBLIC_ONLY, event_types=[])
        changed = await subscriptions.get_endpoint(session, endpoint.id)
    assert (changed.name, changed.url, changed.event_types, changed.secret) == ("renamed", URL, [], secret)


async def test_a_deleted_endpoint_is_gone_and_hears_of_nothing(outbox):
    tenant = await outbox.tenant()
    endpoint, _ = await create(outbox, tenant)
    async with outbox.as_api(tenant) as session:
        await subscriptions.delete_endpoint(session, endpoint.id)
    async with outbox.as_api(tenant) as session:
        for act in (subscriptions.get_endpoint, subscriptions.delete_endpoint):
            with pytest.raises(NotFound):
                await act(session, endpoint.id)
    assert (await page(outbox, tenant)).rows == []
    await outbox.happen(tenant)
    assert await outbox.states() == []


async def test_an_endpoint_hears_only_what_it_asked_for(outbox):
    tenant = await outbox.tenant()
    await create(outbox, tenant, event_types=["generation.succeeded"])
    listening, _ = await create(outbox, tenant, event_types=["generation.queued"])
    everything, _ = await create(outbox, tenant)
    await outbox.happen(tenant)
    owed = {row.endpoint_id for row in await outbox.rows("SELECT endpoint_id FROM webhook_deliveries")}
    assert owed == {listening.id, everything.id}


async def test_endpoints_are_listed_newest_first_in_pages(outbox):
    tenant = await outbox.tenant()
    ids = [(await create(outbox, tenant))[0].id for _ in range(5)][::-1]
    first = await page(outbox, tenant, limit=2)
    second = await page(outbox, tenant, limit=2, after=first.rows[-1].id)
    back = await page(outbox, tenant, limit=2, before=second.rows[0].id)
    assert [row.id for row in first.rows + second.rows] == ids[:4]
    assert (first.has_more, second.has_more, back.has_more) == (True, True, False)
    assert [row.id for row in back.rows] == ids[:2]


async def test_another_tenants_endpoint_is_not_found(outbox):
    mine, theirs = await outbox.tenant("mine"), await outbox.tenant("theirs")
    endpoint, _ = await create(outbox, theirs)
    async with outbox.as_api(mine) as session:
        for act in (subscriptions.get_endpoint, subscriptions.delete_endpoint):
            with pytest.raises(NotFound):
                await act(session, endpoint.id)
        with pytest.raises(NotFound):
            await subscriptions.update_endpoint(session, endpoint.id, policy=PUBLIC_ONLY, name="taken")
    assert (await page(outbox, mine)).rows == []
    assert [row.id for row in (await page(outbox, theirs)).rows] == [endpoint.id]
