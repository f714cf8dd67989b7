"""Objects that nothing names go after a day; those that something names never do."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from core.config import Settings
from core.storage import keys
from core.storage.s3 import ObjectMissing, ObjectStore
from workers.maintain.sweeper import SweepCounts, Sweeper

DAY = timedelta(hours=25)


@pytest.fixture
def store(servers):
    return ObjectStore.from_settings(Settings.model_validate(servers.new_bucket()))


@pytest.fixture
def sweep(queue, store):
    return Sweeper(queue.sessions, store, page=3).run_once


def put(store, *names):
    for name in names:
        store.put(name, b"x", media_type="image/png")


def is_there(store, key):
    try:
        return store.get(key) == b"x"
    except ObjectMissing:
        return False


def lying(store):
    return [found.key for found in store.list_page(after="", limit=1000)]


def test_what_an_attempt_left_without_a_row_goes_after_a_day(queue, clock, store, sweep):
    put(store, *(keys.output("job_1", token, "0.png") for token in range(7)))
    assert sweep() == SweepCounts(0)
    clock.advance(DAY)
    assert sweep() == SweepCounts(7)
    assert lying(store) == []


def test_a_file_stays_and_an_upload_whose_row_is_gone_goes(queue, clock, store, sweep):
    tenant = queue.tenant()
    named, forgotten = keys.upload(tenant, "file_1"), keys.upload(tenant, "file_2")
    put(store, named, forgotten)
    with queue.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO files (id, tenant_id, purpose, name, key, media_type, size_bytes, sha256)"
                " VALUES ('file_1', :t, 'picture', 'n', :k, 'image/png', 1, 's')"
            ),
            {"t": tenant, "k": named},
        )
    clock.advance(DAY)
    assert sweep() == SweepCounts(1)
    assert lying(store) == [named]


def test_a_part_of_an_upload_that_nobody_knows_any_more_is_removed(queue, clock, store, sweep):
    tenant = queue.tenant()
    put(store, f"{keys.of_upload(tenant, 'upl_1')}1")
    assert sweep() == SweepCounts(0)
    clock.advance(DAY)
    assert sweep() == SweepCounts(1)


def test_a_live_jobs_checkpoint_and_what_its_attempt_writes_stay_and_an_ended_ones_go(queue, clock, store, sweep):
    tenant = queue.tenant()
    queue.submit(tenant)
    (job,) = queue.claim()
    kept, replaced = (keys.checkpoint(job.id, 0, step) for step in (2, 1))
    written = keys.output(job.id, job.token, "0.png")
    queue.column("UPDATE jobs SET checkpoint = CAST(:c AS jsonb) RETURNING id", c=json.dumps({"key": kept, "step": 2}))
    put(store, kept, replaced, written)
    clock.advance(DAY)
    assert sweep() == SweepCounts(1)
    assert set(lying(store)) == {kept, written}
    queue.finish(job, images=[])
    assert sweep() == SweepCounts(2)


def test_what_is_not_of_our_making_is_left_alone(queue, clock, store, sweep):
    strange = ["backups/yesterday", "jobs/readme", "tenants/ten_1/notes", "jobs/job_1/x/0.png"]
    put(store, *strange)
    clock.advance(DAY)
    assert sweep() == SweepCounts(0)
    assert lying(store) == sorted(strange)


def test_a_pass_goes_on_where_the_last_one_stopped_and_begins_again_at_the_end(queue, clock, store):
    sweeper = Sweeper(queue.sessions, store, pages=1, page=2)
    put(store, *(keys.output("job_1", token, "0.png") for token in range(5)))
    clock.advance(DAY)
    assert [sweeper.run_once().orphans for _ in range(4)] == [2, 2, 1, 0]
    put(store, keys.output("job_0", 1, "0.png"))
    assert sweeper.run_once() == SweepCounts(1)
