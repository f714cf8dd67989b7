"""Webhook endpoints through the client, under a scripted server."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest
from typer.testing import CliRunner

from lockstep import ServerError
from lockstep.cli import app
from lockstep.webhook_endpoints import WebhookEndpoints
from tests.unit.sdk.server import ScriptedServer

AT = "2026-11-21T09:30:00Z"
ENDPOINT = {"id": "we_1", "name": "", "url": "https://example.com/", "created_at": AT}
DELIVERY = {
    "id": "dlv_1",
    "event_id": "evt_1",
    "event_type": "generation.succeeded",
    "state": "failed",
    "attempt": 1,
    "created_at": AT,
}


def answering(*bodies):
    server = ScriptedServer(*(httpx.Response(200, json=body) for body in bodies))
    return server, WebhookEndpoints(server.transport())


def asked(server):
    return [
        (request.method, request.url.path, json.loads(request.content) if request.content else None)
        for request in server.requests
    ]


def test_an_endpoint_is_made_changed_disabled_and_enabled():
    server, endpoints = answering(*[ENDPOINT] * 4)
    endpoints.create(url="https://example.com/", event_types=["training.failed"], in_order=True)
    endpoints.update("we_1", event_types=[])
    endpoints.disable("we_1")
    endpoints.enable("we_1")
    assert asked(server) == [
        (
            "POST",
            "/v1/webhook_endpoints",
            {"url": "https://example.com/", "event_types": ["training.failed"], "in_order": True},
        ),
        ("POST", "/v1/webhook_endpoints/we_1", {"event_types": []}),
        ("POST", "/v1/webhook_endpoints/we_1/disable", {}),
        ("POST", "/v1/webhook_endpoints/we_1/enable", {}),
    ]


@pytest.mark.parametrize("keep", [True, False])
def test_a_rotation_says_what_becomes_of_the_old_secret(keep):
    server, endpoints = answering(ENDPOINT | {"signing_secret": "whsec_new"})
    assert endpoints.rotate_secret("we_1", keep_old_for_24_hours=keep).signing_secret == "whsec_new"
    assert asked(server)[0][2] == {"keep_old_secret_active_for_24_hours": keep}


def test_a_rotation_is_tried_once():
    server = ScriptedServer(httpx.Response(503), httpx.Response(200, json=ENDPOINT))
    with pytest.raises(ServerError):
        WebhookEndpoints(server.transport()).rotate_secret("we_1")
    assert len(server.requests) == 1


def test_deliveries_are_filtered_looked_at_and_sent_again():
    attempt = {"attempt": 1, "at": AT, "status": None, "error": "No answer within 15 s.", "duration_ms": 15000}
    page = {"data": [DELIVERY], "has_more": False, "last_id": "dlv_1"}
    server, endpoints = answering(page, DELIVERY | {"attempts": [attempt]}, DELIVERY, DELIVERY)
    (delivery,) = endpoints.deliveries("we_1", state="failed")
    (made,) = endpoints.delivery("we_1", delivery.id).attempts
    endpoints.resend("we_1", delivery.id)
    endpoints.test("we_1")
    assert (made.status, made.error) == (None, "No answer within 15 s.")
    assert [(method, path) for method, path, _ in asked(server)] == [
        ("GET", "/v1/webhook_endpoints/we_1/deliveries"),
        ("GET", "/v1/webhook_endpoints/we_1/deliveries/dlv_1"),
        ("POST", "/v1/webhook_endpoints/we_1/deliveries/dlv_1/resend"),
        ("POST", "/v1/webhook_endpoints/we_1/test"),
    ]
    assert server.requests[0].url.params["state"] == "failed"


def test_a_recovery_goes_on_until_all_is_recovered():
    told = [{"resent": 5000, "added": 2, "has_more": True}, {"resent": 7, "added": 0, "has_more": False}]
    server, endpoints = answering(*told)
    recovery = endpoints.recover("we_1", since=datetime(2026, 11, 21, 9, 30, tzinfo=UTC))
    assert (recovery.resent, recovery.added) == (5007, 2)
    assert [body for _, _, body in asked(server)] == [{"since": "2026-11-21T09:30:00+00:00"}] * 2


@pytest.fixture
def typed(monkeypatch):
    """Runs a command against answers of a server; what it printed."""

    def run(*command, answers):
        server, endpoints = answering(*answers)
        monkeypatch.setattr("lockstep.client.WebhookEndpoints", lambda _: endpoints)
        environment = {"LOCKSTEP_API_KEY": "k", "LOCKSTEP_URL": "http://nowhere.invalid", "COLUMNS": "200"}
        result = CliRunner().invoke(app, ["webhooks", *command], env=environment)
        assert result.exit_code == 0, result.output
        return result.output, asked(server)

    return run


@pytest.mark.parametrize(
    ("command", "answer", "printed"),
    [
        (["create", "https://example.com/"], ENDPOINT | {"signing_secret": "whsec_1"}, "we_1 whsec_1"),
        (["rotate", "we_1"], ENDPOINT | {"signing_secret": "whsec_2"}, "we_1 whsec_2"),
        (["disable", "we_1"], ENDPOINT | {"disabled_reason": "requested"}, "disabled: requested"),
        (["enable", "we_1"], ENDPOINT, "enabled"),
        (["test", "we_1"], DELIVERY, "dlv_1"),
        (["resend", "we_1", "dlv_1"], DELIVERY | {"state": "pending"}, "pending"),
        (
            ["recover", "we_1", "--since", "2026-11-21"],
            {"resent": 3, "added": 1, "has_more": False},
            "3 that had failed, 1 that were never sent",
        ),
    ],
)
def test_what_a_command_did_is_said(typed, command, answer, printed):
    assert typed(*command, answers=[answer])[0].strip() == printed


def test_the_log_and_a_deliverys_attempts_are_tables(typed):
    output, _ = typed("log", "we_1", answers=[{"data": [DELIVERY], "has_more": False, "last_id": "dlv_1"}])
    assert all(word in output for word in ("dlv_1", "generation.succeeded", "failed"))
    attempts = [{"attempt": 1, "at": AT, "status": 204, "error": None, "duration_ms": 12}]
    output, _ = typed("attempts", "we_1", "dlv_1", answers=[DELIVERY | {"attempts": attempts}])
    assert "Accepted with 204." in output


def test_endpoints_are_listed_with_what_is_wrong_with_them(typed):
    endpoints = [ENDPOINT, ENDPOINT | {"id": "we_2", "failing_since": AT}, ENDPOINT | {"disabled_reason": "gone"}]
    output, _ = typed("list", answers=[{"data": endpoints, "has_more": False, "last_id": "we_2"}])
    assert [word in output for word in ("enabled", "failing since", "disabled: gone")] == [True] * 3
