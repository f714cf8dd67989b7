from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.config import Settings
from core.jobs.execution import Ending, finish
from core.jobs.retry import JobError
from core.jobs.states import JobState
from core.storage import keys
from core.storage.s3 import ObjectMissing, ObjectStore
from core.tenants.provisioning import set_retention
from workers.maintain.cleaner import CleanCounts, Cleaner, Kept

TABLES = ("webhook_attempts", "webhook_deliveries", "events")


KEPT = Kept(jobs=0, events=30, files=0)


@pytest.fixture(scope="module")
def store(object_store_settings):
    return ObjectStore.from_settings(Settings.model_validate(object_store_settings))


@pytest.fixture
def clean(queue, store):
    def run_once(batch=500, **kept):
        days = Kept(**{**vars(KEPT), **kept})
        return Cleaner(queue.sessions, store, days, batch=batch, sleep=lambda _: None).run_once()

    return run_once


def keep(queue, tenant, **days):
    with Session(queue.owners) as session, session.begin():
        set_retention(session, tenant, **days)


def file_of(queue, store, tenant, job_id, *, purpose="output", file_id="file_1"):
    """A file with its object; the object's key."""
    key = f"jobs/{job_id}/1/{file_id}"
    store.put(key, b"x", media_type="image/png")
    with queue.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO files (id, tenant_id, purpose, name, key, media_type, size_bytes, sha256, job_id,"
                " created_at)"
                " VALUES (:i, :t, :p, 'n', :k, 'image/png', 1, 's', :j, lockstep_now())"
            ),
            {"i": file_id, "t": tenant, "p": purpose, "k": key, "j": job_id},
        )
    return key


def is_there(store, key):
    try:
        return store.get(key) == b"x"
    except ObjectMissing:
        return False


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


def test_idempotency_keys_are_kept_for_a_day(queue, clock, clean):
    tenant = queue.tenant()
    keep_answers(queue, tenant, "old", "older")
    clock.advance(timedelta(hours=23))
    keep_answers(queue, tenant, "young")
    assert clean() == CleanCounts()
    clock.advance(timedelta(hours=2))
    assert clean() == CleanCounts(idempotency_keys=2)
    assert queue.column("SELECT key FROM idempotency_keys") == ["young"]


def test_quotes_are_kept_for_a_day_after_they_expired(queue, clock, clean):
    quote = (
        "INSERT INTO quotes (id, tenant_id, request_sha256, amounts_ms, expires_at)"
        " VALUES (:i, :t, 's', '{1}', lockstep_now() + :lasts)"
    )
    with queue.sessions.begin() as session:
        for quote_id, minutes in (("quo_1", 15), ("quo_2", 300)):
            values = {"i": quote_id, "t": queue.tenant(), "lasts": timedelta(minutes=minutes)}
            session.execute(text(quote), values)
    clock.advance(timedelta(hours=24))
    assert clean() == CleanCounts()
    clock.advance(timedelta(hours=1))
    assert clean() == CleanCounts(quotes=1)
    assert queue.column("SELECT id FROM quotes") == ["quo_2"]


def test_events_are_kept_for_thirty_days_and_go_with_their_deliveries(queue, clock, clean):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    first, *_ = queue.submit(tenant, 3)
    clock.advance(timedelta(days=29))
    queue.claim()
    deliver_all(queue)
    assert clean() == CleanCounts()
    clock.advance(timedelta(days=2))
    assert clean() == CleanCounts(events=3)
    assert rows(queue) == [1, 1, 1]
    assert queue.events(first) == ["generation.started"]


def test_an_event_that_is_still_owed_to_somebody_is_kept(queue, clock, clean):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    queue.submit(tenant)
    clock.advance(timedelta(days=31))
    assert clean().events == 0
    deliver_all(queue)
    assert clean().events == 1


def test_everything_old_goes_however_small_the_batches(queue, clock, clean):
    tenant = queue.tenant()
    keep_answers(queue, tenant, *"abcde")
    queue.submit(tenant, 5)
    clock.advance(timedelta(days=31))
    assert clean(batch=2) == CleanCounts(idempotency_keys=5, events=5)
    assert clean(batch=2) == CleanCounts()


def test_ended_jobs_are_kept_so_long_and_go_with_all_that_was_said_of_them(queue, clock, clean):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    _, waiting = queue.submit(tenant, 2)
    (job,) = queue.claim()
    queue.finish(job, images=[])
    deliver_all(queue)
    clock.advance(timedelta(days=9))
    assert clean(jobs=10, events=0) == CleanCounts()
    clock.advance(timedelta(days=2))
    assert clean(jobs=10, events=0) == CleanCounts(jobs=1)
    assert queue.column("SELECT id FROM jobs") == [waiting]
    assert queue.column("SELECT DISTINCT job_id FROM events") == [waiting]
    assert queue.column("SELECT job_id FROM job_attempts") == []


def test_a_tenant_may_have_times_of_its_own(queue, clock, clean):
    brief, lasting, usual = (queue.tenant(name) for name in ("brief", "lasting", "usual"))
    keep(queue, brief, jobs=1)
    keep(queue, lasting, jobs=0)
    for tenant in (brief, lasting, usual):
        queue.submit(tenant)
    for job in queue.claim(8):
        queue.finish(job, images=[])
    left = "SELECT t.name FROM jobs j JOIN tenants t ON t.id = j.tenant_id ORDER BY t.name"
    clock.advance(timedelta(days=2))
    clean(jobs=10, events=0)
    assert queue.column(left) == ["lasting", "usual"]
    clock.advance(timedelta(days=9))
    clean(jobs=10, events=0)
    assert queue.column(left) == ["lasting"]


def test_a_distillation_goes_after_the_jobs_that_were_made_for_it(queue, clock, clean):
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    queue.cancel(tenant, parent)
    clock.advance(timedelta(days=11))
    assert sum(clean(jobs=10, events=0).jobs for _ in range(2)) == 1 + len(children)


def test_a_job_of_which_a_webhook_is_still_owed_is_kept(queue, clock, clean):
    tenant = queue.tenant()
    subscribe(queue, tenant)
    (job_id,) = queue.submit(tenant)
    queue.cancel(tenant, job_id)
    clock.advance(timedelta(days=11))
    assert clean(jobs=10).jobs == 0
    deliver_all(queue)
    assert clean(jobs=10).jobs == 1


def test_the_files_of_a_job_outlive_it(queue, clock, clean, store):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    key = file_of(queue, store, tenant, job_id)
    queue.cancel(tenant, job_id)
    clock.advance(timedelta(days=11))
    assert clean(jobs=10, events=0).jobs == 1
    assert queue.one("SELECT id, job_id FROM files") == ("file_1", None)
    assert is_there(store, key)


def test_what_jobs_made_is_kept_so_long_and_what_was_uploaded_for_ever(queue, clock, clean, store):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    made = file_of(queue, store, tenant, job_id)
    given = file_of(queue, store, tenant, job_id, purpose="picture", file_id="file_2")
    clock.advance(timedelta(days=8))
    assert clean().files == 0
    assert clean(files=7).files == 1
    assert queue.column("SELECT id FROM files") == ["file_2"]
    assert not is_there(store, made)
    assert is_there(store, given)


def test_a_picture_that_a_training_is_yet_to_learn_from_is_kept(queue, clock, clean, store):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    file_of(queue, store, tenant, job_id)  # `Queue.train` learns from file_1
    training = queue.train(tenant)
    clock.advance(timedelta(days=8))
    assert clean(files=7).files == 0
    queue.cancel(tenant, training)
    assert clean(files=7).files == 1


def test_pairs_go_a_day_after_their_distillation_has_ended(queue, clock, clean, store):
    tenant, other = queue.tenant(), queue.tenant("other")
    (ended, shards), (_, others) = queue.distil(tenant), queue.distil(other)
    keys = [
        file_of(queue, store, owner, job_id, purpose="pairs", file_id=f"file_{owner}")
        for owner, job_id in ((tenant, shards[0]), (other, others[0]))
    ]
    queue.cancel(tenant, ended)
    clock.advance(timedelta(hours=23))
    assert clean().files == 0
    clock.advance(timedelta(hours=2))
    assert clean().files == 1
    assert [is_there(store, key) for key in keys] == [False, True]


def test_a_failed_job_goes_after_the_one_that_tried_it_again(queue, clock, clean):
    tenant = queue.tenant()
    first, second = queue.submit(tenant, 2)
    for job in queue.claim(2):
        with queue.sessions.begin() as session:
            broken = JobError("internal-error", "It broke.", retryable=False)
            finish(session, [Ending(job.id, job.token, JobState.FAILED, 1.0, error=broken)])
    queue.column("UPDATE jobs SET retry_of = :first WHERE id = :second RETURNING id", first=first, second=second)
    clock.advance(timedelta(days=11))
    assert [clean(jobs=10, events=0).jobs for _ in range(3)] == [1, 1, 0]


def test_what_let_somebody_in_goes_when_its_time_is_over(queue, clean):
    tenant, other = queue.tenant(), queue.tenant()
    span = "lockstep_now(), lockstep_now() + CAST(:end AS interval)"
    with Session(queue.owners) as session, session.begin():
        for place, (end, tries) in {tenant: ("-1 s", "25 h"), other: ("1 h", "1 h")}.items():
            values = {"id": place, "end": end, "tries": tries}
            for statement in (
                "INSERT INTO users (id, email, name, password_hash) VALUES (:id, :id, '', 'h')",
                "INSERT INTO memberships (tenant_id, user_id, role) VALUES (:id, :id, 'owner')",
                f"INSERT INTO user_sessions VALUES (:id, :id, :id, :id, {span})",
                f"INSERT INTO invitations VALUES (:id, :id, 'a', 'viewer', :id, {span})",
                "INSERT INTO sign_in_tries VALUES (:id, 1, lockstep_now() - CAST(:tries AS interval))",
            ):
                session.execute(text(statement), values)
    assert clean() == CleanCounts(sign_ins=3)
    assert clean() == CleanCounts()
    with Session(queue.owners) as session:
        for table in ("user_sessions", "invitations", "sign_in_tries"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1


def test_uploads_go_with_what_was_sent_when_they_expire(queue, store, clean):
    tenant = queue.tenant()
    with queue.sessions.begin() as session:
        for number, age in enumerate(("-1 minute", "1 minute")):
            session.execute(
                text(
                    "INSERT INTO uploads (id, tenant_id, purpose, name, key, size_bytes, part_bytes, expires_at)"
                    " VALUES (:i, :t, 'picture', 'n', :k, 2, 1, lockstep_now() + CAST(:a AS interval))"
                ),
                {"i": f"upl_{number}", "t": tenant, "k": keys.of_upload(tenant, f"upl_{number}"), "a": age},
            )
    parts = [f"{keys.of_upload(tenant, upload_id)}{part}" for upload_id in ("upl_0", "upl_1") for part in (1, 2)]
    for key in parts:
        store.put(key, b"x", media_type="a/b")
    assert clean().uploads == 1
    assert [is_there(store, key) for key in parts] == [False, False, True, True]
    assert queue.column("SELECT id FROM uploads") == ["upl_1"]
