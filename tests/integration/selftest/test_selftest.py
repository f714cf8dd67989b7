"""The self test: everything is gone through once and timed, what is wrong is named, and nothing is left behind."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.storage.s3 import ObjectStore
from tests.integration.selftest.conftest import PATIENT, Ground
from tests.serving import Tenant, refused, serving
from tests.waiting import until
from workers.maintain.trial import _PICTURE, Patience

STAGES = ["database", "api", "storage", "submission", "generation", "result", "webhook", "cleanup"]


def states(told: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in told["stages"]}


def error_of(told: dict[str, Any], name: str) -> str:
    """What the only stage that failed says."""
    failed = {stage["name"]: stage["error"] for stage in told["stages"] if stage["state"] == "failed"}
    assert failed.keys() == {name}, told
    return str(failed[name])


def tenants(ground: Ground) -> list[str]:
    return ground.deployment.column("SELECT id FROM tenants WHERE name = 'Self test'")


def test_a_healthy_deployment_passes_every_stage_and_keeps_nothing_of_it(ground: Ground):
    test_id = ground.ask()
    assert ground.told(test_id)["state"] == "queued"
    with ground.working(), ground.sending():
        assert ground.tester(patience=PATIENT).run_once().carried_out == 1
    told = ground.told(test_id)
    assert states(told) == dict.fromkeys(STAGES, "ok")
    assert (told["state"], told["error"]) == ("succeeded", None)
    assert all(stage["seconds"] >= 0 for stage in told["stages"])
    (tenant_id,) = ground.deployment.column("SELECT object_id FROM audit_log WHERE action = 'tenant.deleted'")
    assert tenants(ground) == []
    assert ground.left_of(tenant_id) == []
    assert list(ground.deployment.store.keys_under("jobs/")) == []
    assert ground.own == set()
    acts = ground.operator.http.get("/v1/admin/audit").json()["data"]
    assert [act["actor"] for act in acts if act["action"] == "selftest.requested"] == [
        ground.deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=ground.operator.id)
    ]


def test_only_operators_may_ask(ground: Ground):
    stranger = Tenant(ground.deployment, ground.url, "acme")
    with stranger.http:
        refused(stranger.http.post("/v1/admin/selftest"), 403, "forbidden")
        refused(stranger.http.get(f"/v1/admin/selftest/{ground.ask()}"), 403, "forbidden")
    refused(ground.operator.http.get("/v1/admin/selftest/tst_x"), 404, "not-found")


def test_there_is_one_at_a_time(ground: Ground):
    first = ground.ask()
    told = refused(ground.operator.http.post("/v1/admin/selftest"), 409, "conflict")
    assert first in told["detail"]
    ground.tester().run_once()
    assert ground.told(first)["state"] == "failed"
    assert ground.ask() != first


def test_without_a_worker_the_generation_fails_and_says_what_would_help(ground: Ground):
    test_id = ground.ask()
    ground.tester().run_once()
    told = ground.told(test_id)
    assert error_of(told, "generation") == (
        "Not done within 1 s, no_worker: No worker of its pool is there. What would help: A worker's coming back."
    )
    assert states(told) == dict.fromkeys(STAGES, "ok") | {
        "generation": "failed", "result": "skipped", "webhook": "skipped"
    }  # fmt: skip
    assert tenants(ground) == []
    assert ground.deployment.scalar("SELECT count(*) FROM ready") == 0


def test_with_storage_away_its_stage_fails_and_what_is_left_goes_when_it_is_back(ground: Ground):
    away = ground.deployment.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    test_id = ground.ask()
    with serving(away) as url:
        ground.tester(url=url, store=ObjectStore.from_settings(away)).run_once()
    told = ground.told(test_id)
    errors = {stage["name"]: stage["error"] for stage in told["stages"] if stage["state"] == "failed"}
    assert errors == {
        "storage": "POST /v1/files answered 503, storage-unavailable: Object storage does not answer.",
        "cleanup": "Object storage does not answer. It is tried again until nothing is left.",
    }
    assert len(tenants(ground)) == 1
    assert ground.tester().run_once().cleared == 1
    assert tenants(ground) == []


def test_an_api_that_does_not_answer_is_named(ground: Ground):
    test_id = ground.ask()
    ground.tester(url="http://127.0.0.1:9").run_once()
    told = error_of(ground.told(test_id), "api")
    assert told.startswith("The API does not answer at http://127.0.0.1:9 (")
    assert "LOCKSTEP_INTERNAL_URL" in told


def test_a_webhook_that_nobody_sends_is_named(ground: Ground):
    test_id = ground.ask()
    with ground.working():
        ground.tester(patience=Patience(generation=30.0, webhook=1.0)).run_once()
    assert error_of(ground.told(test_id), "webhook") == (
        "No webhook within 1 s: the delivery of generation.succeeded is pending, and was not tried."
    )


def test_a_webhook_that_is_refused_is_named_with_its_answer(ground: Ground):
    test_id = ground.ask()
    tester = ground.tester(patience=Patience(generation=30.0, webhook=2.0))
    ground.own = set()  # the sender does not know it for our own
    with ground.working(), ground.sending():
        tester.run_once()
    told = error_of(ground.told(test_id), "webhook")
    assert told.startswith(
        "No webhook within 2 s: the delivery of generation.succeeded is pending (The webhook URL must"
    )


def test_a_maintainer_that_is_told_to_stop_ends_it_at_once_and_clears_it_away(ground: Ground):
    test_id = ground.ask()
    tester = ground.tester(patience=Patience(generation=100.0))
    carrying_out = threading.Thread(target=tester.run_once)
    carrying_out.start()
    until(lambda: "submission" in states(ground.told(test_id)))
    tester.stop()
    carrying_out.join(timeout=10)
    assert not carrying_out.is_alive()
    assert error_of(ground.told(test_id), "generation") == "The maintainer was told to stop."
    assert tenants(ground) == []


@pytest.mark.parametrize(
    ("state", "error"),
    [("queued", "No maintainer took it up: is `lockstepd maintain` running?"), ("running", "It was cut off: ")],
)
def test_one_that_nobody_carries_out_to_its_end_ends_by_itself(ground: Ground, state: str, error: str):
    test_id = ground.ask()
    late = "UPDATE self_tests SET state = :state, until = lockstep_now() - interval '1 second'"
    with Session(ground.deployment.owner) as session, session.begin():
        session.execute(text(late), {"state": state})
    told = ground.told(test_id)
    assert told["state"] == "failed"
    assert told["error"].startswith(error)
    assert ground.ask() != test_id


def test_what_one_that_was_cut_off_had_is_cleared_away(ground: Ground):
    test_id = ground.ask()
    left = ground.deployment.new_tenant("Self test")
    with Session(ground.deployment.owner) as session, session.begin():
        cut_off = "UPDATE self_tests SET state = 'running', subject_id = :id, until = lockstep_now() - interval '1 s'"
        session.execute(text(cut_off), {"id": left})
    ground.told(test_id)
    assert ground.tester().run_once().cleared == 1
    assert tenants(ground) == []


def test_its_picture_is_one():
    assert Image.open(io.BytesIO(_PICTURE)).size == (8, 8)
