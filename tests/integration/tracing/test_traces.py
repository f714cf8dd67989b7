"""One trace of one generation: sent by the API, a worker and the maintainer to a collector that speaks OTLP."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from typing import Any

import httpx
import structlog
from structlog.testing import LogCapture

from core.tracing import checked
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.tracing.collector import Span, Trace

CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STAGES = ["claim", "fetch", "engine", "store", "finish"]
OF_THE_ENGINE = ["load", "open", "condition", "U-Net", "decode", "encode"]


def submit(api: httpx.Client, receiver: Receiver | None = None, **headers: str) -> dict[str, Any]:
    if receiver is not None:
        hooks = {"name": "ours", "url": receiver.url(), "event_types": ["generation.succeeded"]}
        assert api.post("/v1/webhook_endpoints", json=hooks).status_code == 201
    body = {"prompt": "a cat", "size": "16x16", "steps": 2}
    response = api.post("/v1/generations", json=body, headers=headers)
    assert response.status_code == 201, response.text
    job: dict[str, Any] = response.json()
    return job


def contains(outer: Span, inner: Span) -> bool:
    return outer.began_at <= inner.began_at <= inner.ended_at <= outer.ended_at


async def test_a_generation_is_one_trace_from_its_request_to_its_delivery(traced, collector):
    async with receiving() as receiver:
        with traced.api() as api:
            job = submit(api, receiver)
        traced.work()
        await traced.send()
        (delivered,) = await receiver.has(1)
    request = next(span for span in collector.spans if span.name == "POST /v1/generations")
    trace: Trace = collector.of(request.trace_id)
    assert trace.roots == [request]
    assert trace.names_under(request) == ["authenticate", "wait", "commit", "generation attempt", "webhook delivery"]
    attempt, delivery = trace.one("generation attempt"), trace.one("webhook delivery")
    assert trace.names_under(attempt) == STAGES
    engine = trace.one("engine")
    assert trace.names_under(engine) == OF_THE_ENGINE
    for outer in (attempt, engine):
        assert all(contains(outer, inner) for inner in trace.under(outer))
    assert contains(request, trace.one("commit"))
    # The parts follow each other, as work does that is done once.
    for parent in (attempt, engine):
        parts = trace.under(parent)
        assert all(before.ended_at <= after.began_at + 1_000_000 for before, after in pairwise(parts))
    assert {span.service for span in trace.spans} == {"lockstep-api", "lockstep-worker", "lockstep-maintain"}
    assert attempt.attributes["lockstep.job_id"] == job["id"]
    assert attempt.attributes["lockstep.tenant_id"] == traced.deployment.tenant_id
    assert delivery.attributes["lockstep.event"] == "generation.succeeded"
    assert delivery.is_named_by(delivered.headers["traceparent"])
    assert not any(span.is_error for span in trace.spans)


async def test_every_job_of_a_batch_has_what_the_batch_did_in_its_own_trace(traced, collector):
    with traced.api() as api:
        jobs = [submit(api) for _ in range(2)]
    traced.work()
    attempts = [span for span in collector.spans if span.name == "generation attempt"]
    assert {span.attributes["lockstep.job_id"] for span in attempts} == {job["id"] for job in jobs}
    assert {span.attributes["lockstep.batch_size"] for span in attempts} == {2}
    assert len({span.trace_id for span in attempts}) == 2
    for span in attempts:
        assert collector.of(span.trace_id).names_under(span) == STAGES


async def test_a_clients_trace_goes_on_in_the_jobs(traced, collector):
    with traced.api() as api:
        submit(api, traceparent=CLIENTS)
    traced.work()
    trace = collector.of(CLIENTS.split("-")[1])
    (root,) = trace.roots
    assert (root.name, root.parent_id) == ("POST /v1/generations", CLIENTS.split("-")[2])
    assert trace.one("generation attempt").parent_id == root.id


async def test_a_client_that_samples_nothing_is_not_traced(traced, collector):
    with traced.api() as api:
        job = submit(api, traceparent=f"{CLIENTS[:-2]}00")
    traced.work()
    assert collector.of(CLIENTS.split("-")[1]).spans == []
    assert traced.deployment.job(job["id"]).traceparent.endswith("-00")


async def test_an_attempt_that_fails_is_marked_and_says_why(traced, collector):
    with traced.api() as api:
        submit(api)
    model = traced.deployment.one("SELECT id, location FROM models")
    with traced.deployment.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE models SET location = '/nowhere'")
    traced.work()
    with traced.deployment.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE models SET location = %s WHERE id = %s", (model.location, model.id))
    (attempt,) = [span for span in collector.spans if span.name == "generation attempt"]
    assert attempt.is_error
    assert collector.of(attempt.trace_id).names_under(attempt)[0] == "claim"


async def test_without_a_collector_nothing_is_traced_but_a_clients_trace_is_passed_on(untraced):
    async with receiving() as receiver:
        with untraced.api() as api:
            carried, bare = submit(api, receiver, traceparent=CLIENTS), submit(api)
        untraced.work()
        await untraced.send()
        requests = await receiver.has(2)
    assert untraced.deployment.job(carried["id"]).traceparent == CLIENTS
    assert untraced.deployment.job(bare["id"]).traceparent is None
    told = {json.loads(request.body)["data"]["id"]: request.headers.get("traceparent") for request in requests}
    assert told == {carried["id"]: CLIENTS, bare["id"]: None}


async def test_every_line_of_a_job_in_the_logs_names_its_trace_its_job_and_its_tenant(traced, collector):
    told = LogCapture()
    with traced.api() as api:
        loud = structlog.make_filtering_bound_logger(logging.INFO)
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, told], wrapper_class=loud)
        job = submit(api)
        traced.work()
    (request,) = [line for line in told.entries if line["event"] == "request"]
    lines = [request, *(line for line in told.entries if line["event"].startswith("attempt."))]
    assert [line["event"] for line in lines] == ["request", "attempt.started", "attempt.ended"]
    (trace,) = {span.trace_id for span in collector.spans if span.name == "POST /v1/generations"}
    named = {"job_id": job["id"], "tenant_id": traced.deployment.tenant_id, "trace_id": trace}
    assert [{name: line[name] for name in named} for line in lines] == [named] * 3


async def test_a_delivery_that_is_refused_names_the_same_in_the_logs(traced, collector):
    told = LogCapture()
    with traced.api() as api:
        hooks = {"name": "nobody", "url": "http://127.0.0.1:9/", "event_types": ["generation.queued"]}
        assert api.post("/v1/webhook_endpoints", json=hooks).status_code == 201
        job = submit(api)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, told])
    try:
        await traced.send()
    finally:
        structlog.reset_defaults()
    (line,) = [line for line in told.entries if line["event"] == "delivery.refused"]
    (delivery,) = [span for span in collector.spans if span.name == "webhook delivery"]
    assert delivery.is_error
    assert (line["job_id"], line["trace_id"]) == (job["id"], delivery.trace_id)
    assert line["tenant_id"] == traced.deployment.tenant_id


async def test_what_is_no_traceparent_is_left_out(untraced):
    with untraced.api() as api:
        for sent in ("nonsense", CLIENTS.replace("0af7", "0AF7"), f"ff{CLIENTS[2:]}", f"00-{'0' * 32}-{'1' * 16}-01"):
            job = submit(api, traceparent=sent)
            assert untraced.deployment.job(job["id"]).traceparent is None
    assert checked(f" {CLIENTS}-of-a-later-version ") == CLIENTS
