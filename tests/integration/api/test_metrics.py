from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from core.jobs.learning import learn
from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.serving import POOL, Deployment, Tenant, refused

Told = dict[tuple[str, frozenset[str]], float]


def told(operator: Tenant) -> Told:
    response = operator.http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def learn_all(deployment: Deployment) -> None:
    options = "-c lockstep.clock_offset=PT60S"
    engine = create_engine(deployment.settings.worker_dsn, poolclass=NullPool, connect_args={"options": options})
    with Session(engine) as session, session.begin():
        learn(session)


def test_metrics_are_for_operators(acme: Tenant):
    refused(acme.http.get("/metrics"), 403, "forbidden")


def test_gauges_tell_what_stands_without_any_worker(acme: Tenant, operator: Tenant):
    before = told(operator)
    acme.deployment.claim(acme.generate()["id"])
    acme.generate()
    after = told(operator)
    for name in ("lockstep_jobs_queued", "lockstep_jobs_running"):
        assert after[name, frozenset([POOL])] == before[name, frozenset([POOL])] + 1
    assert after["lockstep_oldest_wait_seconds", frozenset([POOL])] >= 0
    assert not any(name == "lockstep_workers" for name, _ in after)


def test_counters_count_every_attempt_once(acme: Tenant, operator: Tenant):
    deployment = acme.deployment
    learn_all(deployment)
    before = told(operator)
    deployment.succeed(deployment.claim(acme.generate()["id"]))
    deployment.end(deployment.claim(acme.generate()["id"]), JobState.FAILED, JobError("internal-error", "x", False))
    learn_all(deployment)
    learn_all(deployment)
    after = told(operator)
    for outcome in ("succeeded", "failed"):
        labels = frozenset([POOL, "generation", outcome])
        assert after["lockstep_attempts_total", labels] == before.get(("lockstep_attempts_total", labels), 0) + 1
        assert after["lockstep_gpu_seconds_total", labels] == pytest.approx(
            before.get(("lockstep_gpu_seconds_total", labels), 0) + 1.5
        )
