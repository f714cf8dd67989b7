"""Events: the stream of one job, and the feed of all."""

from __future__ import annotations

import json
import threading
from itertools import islice

import pytest
from sqlalchemy import text

from api import standing
from core.jobs.states import JobStage, JobState
from tests.integration.api.members import signed_in
from tests.serving import created, refused


def parsed(lines):
    """The events of a stream as (id, type, body)."""
    events, fields = [], {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            events.append((fields["id"], fields["event"], json.loads(fields["data"])))
            fields = {}
    return events


def streamed(tenant, job_id, **headers):
    sent = {"Last-Event-ID": headers["after"]} if "after" in headers else {}
    with tenant.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=sent) as response:
        assert response.status_code == 200
        return parsed(response.iter_lines())


@pytest.fixture
def finished(acme):
    """A job that was queued, started, reported and succeeded: four events."""
    job_id = acme.generate()["id"]
    held = acme.deployment.claim(job_id)
    acme.deployment.report(held, stage=JobStage.WORKING, progress={"step": 1})
    acme.deployment.succeed(held)
    return job_id


def test_a_stream_tells_a_job_from_beginning_to_end_and_ends(acme, finished):
    events = streamed(acme, finished)
    verbs = ["queued", "started", "progress", "succeeded"]
    assert [(number, kind) for number, kind, _ in events] == [
        (str(place), f"generation.{verb}") for place, verb in enumerate(verbs, start=1)
    ]
    assert [body["sequence"] for _, _, body in events] == [1, 2, 3, 4]
    assert events[3][2]["data"]["state"] == "succeeded"


@pytest.mark.parametrize(("after", "rest"), [("2", ["3", "4"]), ("4", []), ("99", []), ("?", ["1", "2", "3", "4"])])
def test_a_stream_goes_on_after_the_last_event_that_arrived(acme, finished, after, rest):
    assert [number for number, _, _ in streamed(acme, finished, after=after)] == rest


def test_a_stream_goes_on_after_an_events_id_as_well(acme, finished):
    second = streamed(acme, finished)[1][2]["id"]
    assert [number for number, _, _ in streamed(acme, finished, after=second)] == ["3", "4"]


def test_a_stream_tells_what_happens_while_it_is_open(acme):
    job_id = acme.generate()["id"]
    with acme.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        lines = response.iter_lines()
        (first,) = parsed(islice(lines, 4))
        assert first[1] == "generation.queued"
        acme.deployment.end(acme.deployment.claim(job_id), JobState.CANCELED)
        assert [kind for _, kind, _ in parsed(lines)] == ["generation.started", "generation.canceled"]


def test_a_stream_ends_with_the_key_that_asked_for_it(acme, monkeypatch):
    monkeypatch.setattr(standing, "_LOOK_EVERY", 0.0)
    job_id = acme.generate()["id"]
    key = created(acme.http.post("/v1/api_keys", json={"name": "k", "scopes": ["read"]}))
    asked = {"Authorization": f"Bearer {key['key']}"}
    with acme.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=asked) as response:
        lines = response.iter_lines()
        (first,) = parsed(islice(lines, 4))
        assert first[1] == "generation.queued"
        assert acme.http.delete(f"/v1/api_keys/{key['id']}").is_success
        assert parsed(lines) == []
    refused(acme.http.get(f"/v1/jobs/{job_id}/events", headers=asked), 401, "unauthenticated")


def test_a_page_is_followed_until_whoever_looks_at_it_has_signed_out(acme, monkeypatch):
    monkeypatch.setattr(standing, "_LOOK_EVERY", 0.0)
    job_id = acme.generate()["id"]
    with signed_in(acme) as client, client.stream("GET", f"/studio/live/jobs/{job_id}") as response:
        lines = response.iter_lines()
        assert next(lines) == "event: changed"
        assert client.delete("/v1/sessions/current").is_success
        assert list(lines)[-1] == ""


def test_a_stream_has_the_headers_that_keep_it_flowing(acme, finished):
    with acme.http.stream("GET", f"/v1/jobs/{finished}/events") as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"


def test_a_stream_of_nothing_is_not_found(acme):
    refused(acme.http.get("/v1/jobs/job_gone/events"), 404, "not-found")


def test_listeners_who_leave_cost_nothing(acme):
    """More streams are opened and dropped than there are connections to the database."""
    job_id = acme.generate()["id"]

    def listen():
        with acme.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            next(response.iter_lines())

    listeners = [threading.Thread(target=listen) for _ in range(30)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()
    assert acme.http.get(f"/v1/jobs/{job_id}").status_code == 200


def test_the_feed_has_every_event_oldest_first_in_pages(acme, finished):
    training = acme.train()["id"]
    page, seen = acme.http.get("/v1/events", params={"limit": 2}).json(), []
    while True:
        seen += page["data"]
        if not page["has_more"]:
            break
        page = acme.http.get("/v1/events", params={"limit": 2, "after": page["last_id"]}).json()
    assert [(event["type"], event["data"]["id"]) for event in seen] == [
        ("generation.queued", finished),
        ("generation.started", finished),
        ("generation.progress", finished),
        ("generation.succeeded", finished),
        ("training.queued", training),
    ]
    assert acme.http.get("/v1/events", params={"after": seen[-1]["id"]}).json()["data"] == []


def test_the_feed_and_the_stream_tell_the_same(acme, finished):
    feed = acme.http.get("/v1/events").json()["data"]
    told = [body for _, _, body in streamed(acme, finished)]
    assert [{**event, "timestamp": None} for event in feed] == [{**event, "timestamp": None} for event in told]


def test_the_feed_can_be_narrowed(acme, finished):
    acme.generate()
    of_type = acme.http.get("/v1/events", params={"type": "generation.queued"}).json()["data"]
    assert len(of_type) == 2
    of_job = acme.http.get("/v1/events", params={"job": finished, "type": "generation.started"}).json()["data"]
    assert [event["data"]["id"] for event in of_job] == [finished]


def test_the_feed_never_passes_an_event_that_commits_late(acme):
    """An event is written early and committed late; another is committed meanwhile. Neither is missed."""
    early, late = acme.generate()["id"], acme.generate()["id"]
    cursor = acme.http.get("/v1/events").json()["last_id"]
    with acme.deployment.owner.connect() as writer:
        writer.execute(
            text(
                "INSERT INTO events (id, tenant_id, job_id, sequence, type, data)"
                " VALUES ('evt_late' || :job, :tenant, :job, 2, 'generation.started', '{}')"
            ),
            {"job": late, "tenant": acme.id},
        )
        acme.deployment.claim(early)
        assert acme.http.get("/v1/events", params={"after": cursor}).json()["data"] == []
        writer.commit()
    told = acme.http.get("/v1/events", params={"after": cursor}).json()["data"]
    assert [event["id"] == f"evt_late{late}" for event in told] == [True, False]


def test_the_feed_cannot_go_on_after_an_event_that_is_not_there(acme):
    assert refused(acme.http.get("/v1/events?after=evt_gone"), 404, "not-found")["error"]["param"] == "after"


def test_a_type_that_no_event_has_is_refused(acme):
    assert refused(acme.http.get("/v1/events?type=generation.exploded"), 422, "validation")["error"]["param"] == "type"
