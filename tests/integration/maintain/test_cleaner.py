from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from workers.maintain import cleaner
from workers.maintain.cleaner import CleanCounts

TABLES = ("webhook_attempts", "webhook_deliveries", "events")


def clean(queue, **options):
    return cleaner.run_once(queue.sessions, **options)


def keep_answers(queue, tenant, *keys):
    with queue.sessions.begin() as session:
        for key in keys:
            session.execute(
                text(
                    "INSERT INTO idempotency_keys (tenant_id, route, key, body_sha256, status, body)"
                    " VALUES (:t, 'r', :k, 's', 201, '{}')"
                ),
                {"t": tenant, "k": key},
            )


def subscribe(queue, tenant):
    with queue.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, secret)"
                " VALUES ('we_1', :t, 'n', 'https://hooks.example.com', '{}', 's')"
            ),
            {"t": tenant},
        )


def deliver_all(queue):
    with queue.sessions.begin() as session:
        session.execute(text("UPDATE webhook_deliveries SET state = 'delivered', next_attempt_at = NULL"))
        session.execute(
            text(
                "INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, status, duration_ms)"
                " SELECT id, 1, tenant_id, 204, 5 FROM webhook_deliveries ON CONFLICT DO NOTHING"
            )
        )


def rows(queue):
    return [queue.one(f"SELECT count(*) AS rows FROM {table}").rows for table in TABLES]


def test_idempotency_keys_are_kept_for_a_day(queue, clock):
    tenant = queue.tenant()
    keep_answers(queue, tenant, "old", "older")
    clock.advance(timedelta(hours=23))
    keep_answers(queue, tenant, "young")
    assert clean(queue) == CleanCounts()
    clock.advance(timedelta(hours=2))
    assert clean(queue) == CleanCounts(idempotency_keys=2)
    assert queue.column("SELECT key FROM idempotency_keys") == ["young"]


def test_events_are_kept_for_thirty_days_and_go_with_their_deliveries(queue, clock):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    first, *_ = queue.submit(tenant, 3)
    clock.advance(timedelta(days=29))
    queue.claim()
    deliver_all(queue)
    assert clean(queue) == CleanCounts()
    clock.advance(timedelta(days=2))
    assert clean(queue) == CleanCounts(events=3)
    assert rows(queue) == [1, 1, 1]
    assert queue.events(first) == ["generation.started"]


def test_an_event_that_is_still_owed_to_somebody_is_kept(queue, clock):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    queue.submit(tenant)
    clock.advance(timedelta(days=31))
    assert clean(queue).events == 0
    deliver_all(queue)
    assert clean(queue).events == 1


def test_everything_old_goes_however_small_the_batches(queue, clock):
    tenant = queue.tenant()
    keep_answers(queue, tenant, *"abcde")
    queue.submit(tenant, 5)
    clock.advance(timedelta(days=31))
    assert clean(queue, batch=2) == CleanCounts(idempotency_keys=5, events=5)
    assert clean(queue, batch=2) == CleanCounts()
