"""Each invariant holds for what the system does, and tells when it is broken on purpose."""

from __future__ import annotations

import pytest

from core.invariants import checks
from tests.integration.invariants.conftest import Breakable, History
from workers.maintain import watcher


def test_all_hold_for_jobs_of_every_fate(breakable: Breakable):
    assert breakable.found() == {}


def test_a_waiting_job_without_a_queue_row_is_told(history: History, breakable: Breakable):
    breakable.run("DELETE FROM ready WHERE job_id = :id", id=history.waiting)
    assert breakable.found() == {"stranded-jobs": [history.waiting]}


def test_a_second_success_is_told(history: History, breakable: Breakable):
    breakable.add_attempt(history.succeeded, "succeeded")
    assert breakable.found()["doubled-results"] == [history.succeeded]


def test_a_success_by_an_older_claim_is_told(history: History, breakable: Breakable):
    breakable.add_attempt(history.succeeded, "returned")
    assert breakable.found() == {"doubled-results": [history.succeeded]}


def test_an_open_attempt_at_a_job_that_does_not_run_is_told(history: History, breakable: Breakable):
    breakable.run("UPDATE job_attempts SET outcome = NULL, ended_at = NULL WHERE job_id = :id", id=history.failed)
    assert breakable.found() == {"loose-attempts": [history.failed]}


def test_a_lease_without_an_attempt_is_told(history: History, breakable: Breakable):
    breakable.run("DELETE FROM job_attempts WHERE job_id = :id", id=history.running)
    assert breakable.found() == {"loose-attempts": [history.running]}


def test_an_end_that_nobody_was_told_is_told(history: History, breakable: Breakable):
    breakable.run("DELETE FROM webhook_deliveries")
    breakable.run("DELETE FROM events WHERE type = 'generation.failed'")
    assert breakable.found() == {"untold-ends": [history.failed]}


def test_an_end_that_was_told_of_a_running_job_is_told(history: History, breakable: Breakable):
    breakable.run(
        "UPDATE events SET type = 'generation.failed' WHERE job_id = :id AND sequence = 2", id=history.running
    )
    assert breakable.found() == {"untold-ends": [history.running]}


def test_an_event_that_an_endpoint_never_got_is_told(history: History, breakable: Breakable):
    started = history.queue.one("SELECT id FROM events WHERE job_id = :id AND sequence = 2", id=history.failed)
    for sign, jobs in (("-", "<"), ("+", ">")):  # others' of its type lie before and after it
        breakable.run(
            f"UPDATE events SET created_at = created_at {sign} interval '1 second' WHERE job_id {jobs} :id",
            id=history.failed,
        )
    breakable.run("DELETE FROM webhook_deliveries WHERE event_id = :id", id=started.id)
    assert breakable.found() == {"missed-deliveries": [started.id]}


def test_a_host_is_owed_the_events_of_the_jobs_that_name_it_and_no_others(history: History, breakable: Breakable):
    breakable.run(
        "INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, on_request, listening_since)"
        " VALUES ('we_2', :tenant, '', 'http://127.0.0.1/', '{}', true, now() - interval '1 hour')"
    )
    for sign, job_id in (("-", history.succeeded), ("+", history.canceled)):  # the first and the last
        breakable.run(
            f"UPDATE events SET created_at = created_at {sign} interval '1 second' WHERE job_id = :id", id=job_id
        )
        breakable.run(
            "INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, event_id)"
            " SELECT 'dlv_' || id, :tenant, 'we_2', id FROM events WHERE job_id = :id AND sequence = 1",
            id=job_id,
        )
    assert breakable.found() == {}
    for types, missed in (('["generation.failed"]', False), ('["generation.queued"]', True), ("[]", True)):
        breakable.run(
            "UPDATE jobs SET webhook = jsonb_build_object('endpoint_id', 'we_2', 'event_types', CAST(:types AS jsonb))"
            " WHERE id = :id",
            types=types,
            id=history.waiting,
        )
        queued = f"evt_{history.waiting[4:]}000001"
        assert breakable.found() == ({"missed-deliveries": [queued]} if missed else {})


def test_a_delivery_that_nobody_received_is_told(history: History, breakable: Breakable):
    delivery = history.queue.one("SELECT id FROM webhook_deliveries LIMIT 1")
    breakable.run(
        "UPDATE webhook_deliveries SET state = 'delivered', next_attempt_at = NULL WHERE id = :id", id=delivery.id
    )
    assert breakable.found() == {"missed-deliveries": [delivery.id]}


def test_a_file_under_the_token_of_an_attempt_that_did_not_succeed_is_told(breakable: Breakable):
    breakable.run("UPDATE files SET key = replace(key, '/0.png', '9/0.png')")
    assert list(breakable.found()) == ["misplaced-files"]


def test_a_count_of_running_jobs_that_is_not_true_is_told(history: History, breakable: Breakable):
    breakable.run("UPDATE tenant_sched SET running = running + 1")
    assert breakable.found() == {"wrong-counts": [f"gpu/{history.tenant_id}"]}


def test_a_tenant_that_sleeps_over_its_work_is_told(history: History, breakable: Breakable):
    breakable.run("UPDATE tenant_sched SET active = false")
    breakable.run("DELETE FROM sched_notes WHERE wake")
    assert breakable.found() == {"sleeping-tenants": [f"gpu/{history.tenant_id}"]}


def test_a_tenant_whose_only_work_wants_a_paused_model_may_sleep(breakable: Breakable):
    breakable.run("UPDATE tenant_sched SET active = false")
    breakable.run("DELETE FROM sched_notes")
    breakable.run("UPDATE models SET paused_at = now()")
    assert "sleeping-tenants" not in breakable.found()


@pytest.mark.parametrize("strand", ["vtime = -1", "head_key = (SELECT max(sort_key) + 1 FROM ready)"])
def test_a_tenant_awake_whose_work_no_claim_sees_is_told(history: History, breakable: Breakable, strand):
    breakable.run("DELETE FROM sched_notes")
    breakable.run(f"UPDATE tenant_sched SET active = true, {strand}")
    assert breakable.found()["tenants-behind"] == [f"gpu/{history.tenant_id}"]


def test_a_queue_row_of_a_job_that_runs_is_told(history: History, breakable: Breakable):
    breakable.run(
        "INSERT INTO ready (pool, tenant_id, sort_key, job_id, lane, model_id, cost_ms) "
        "SELECT pool, tenant_id, sort_key, id, lane, model_id, cost_ms FROM jobs WHERE id = :id",
        id=history.running,
    )
    assert breakable.found() == {"false-queue-rows": [history.running]}


def test_a_job_that_the_ledger_knows_otherwise_is_told(history: History, breakable: Breakable):
    breakable.run("UPDATE jobs SET charged_ms = charged_ms + 1 WHERE id = :id", id=history.succeeded)
    breakable.run("DELETE FROM ledger_entries WHERE job_id = :id AND kind <> 'reserve'", id=history.canceled)
    assert sorted(breakable.found()["unbalanced-jobs"]) == sorted([history.succeeded, history.canceled])


def test_a_budget_that_holds_back_for_nothing_is_told(history: History, breakable: Breakable):
    breakable.run("UPDATE budgets SET reserved_ms = reserved_ms + 1")
    assert breakable.found() == {"wrong-reserves": [history.tenant_id]}


def test_an_answer_that_promises_a_job_which_is_not_there_is_told(breakable: Breakable):
    breakable.run(
        "INSERT INTO idempotency_keys (tenant_id, route, key, body_sha256, status, body) "
        "VALUES (:tenant, 'POST /v1/generations', 'k', '', 201, jsonb_build_object('id', 'job_gone'))"
    )
    assert breakable.found() == {"broken-promises": ["job_gone"]}


def test_an_attempt_that_was_not_counted_is_told(history: History, breakable: Breakable):
    breakable.add_attempt(history.failed, "lost", attempt=2)
    assert breakable.found() == {"excess-attempts": [history.failed]}


def test_a_lease_and_a_retry_that_nobody_saw_to_for_long_are_told(history: History, breakable: Breakable):
    breakable.run("UPDATE jobs SET lease_until = now() - interval '2 minutes' WHERE id = :id", id=history.running)
    breakable.run("UPDATE jobs SET not_before = now() - interval '2 minutes' WHERE id = :id", id=history.retried)
    assert sorted(breakable.found()["overdue-jobs"]) == sorted([history.running, history.retried])


def test_maintenance_keeps_the_numbers_of_its_last_look(history: History, breakable: Breakable):
    assert watcher.run_once(breakable.sessions).broken == 0
    assert breakable.looks() == {invariant.name: 0 for invariant in checks.INVARIANTS}
    breakable.run("DELETE FROM ready WHERE job_id = :id", id=history.waiting)
    assert watcher.run_once(breakable.sessions).broken == 1
    assert breakable.looks()["stranded-jobs"] == 1
