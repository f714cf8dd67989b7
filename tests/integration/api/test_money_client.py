"""The SDK and the command line against budgets, quotes, usage and limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from lockstep import BudgetExceeded, Lockstep
from lockstep.cli import app
from tests.serving import Deployment, Tenant

COST = 0.04


@pytest.fixture
def key(deployment: Deployment, acme: Tenant) -> str:
    return deployment.new_key(acme.id)


@pytest.fixture
def client(acme: Tenant, key: str) -> Iterator[Lockstep]:
    with Lockstep(base_url=acme.base_url, api_key=key) as client:
        yield client


def test_a_quote_that_was_asked_for_by_the_client_binds_its_request(client: Lockstep):
    quote = client.quotes.create("generation", prompt="a cat", steps=2)
    assert (quote.kind, quote.gpu_seconds) == ("generation", COST)
    assert quote.expires_at > datetime.now(UTC)
    job = client.generations.create(prompt="a cat", steps=2, quote=quote.id, priority="low")
    assert job.model_extra is not None
    assert job.model_extra["quote"] == quote.id


def test_a_training_and_a_distillation_can_be_quoted_too(client: Lockstep, acme: Tenant):
    image = acme.upload()["id"]
    training: dict[str, Any] = {"concept": "tom", "superclass": "cat", "images": [image], "steps": 10}
    quote = client.quotes.create("training", **training)
    assert client.trainings.create(**training, quote=quote.id).kind == "training"
    distillation: dict[str, Any] = {"name": "swift", "prompts": ["a cat"], "pairs": 0, "steps": 10}
    quote = client.quotes.create("distillation", **distillation)
    assert client.distillations.create(**distillation, quote=quote.id).kind == "distillation"


def test_the_client_sets_a_budget_and_meets_it(client: Lockstep):
    assert client.budgets.set(COST, period="month").left == COST
    client.generations.create(prompt="a cat", steps=2)
    with pytest.raises(BudgetExceeded) as refusal:
        client.generations.create(prompt="a cat", steps=2)
    assert refusal.value.code == "budget-exceeded"
    (told,) = client.budgets.list()
    assert (told.limit, told.reserved, told.left) == (COST, COST, 0)
    assert client.budgets.set(None).limit is None


def test_the_client_reads_usage_and_limits(client: Lockstep, deployment: Deployment):
    job = client.generations.create(prompt="a cat", steps=2)
    deployment.succeed(deployment.claim(job.id))
    used = client.account.usage(by=["kind", "model"])
    assert [(row.kind, row.jobs, row.gpu_seconds) for row in used.data] == [("generation", 1, 1.5)]
    assert client.account.usage(first=used.last, last=used.last).total.jobs == 1
    limits = client.account.limits()
    assert (limits.jobs.used, limits.budgets[0].spent) == (0, 1.5)


def test_the_command_line_tells_usage_and_limits_and_sets_budgets(client: Lockstep, acme: Tenant, key: str):
    def run(*command: str) -> str:
        environment = {"LOCKSTEP_API_KEY": key, "LOCKSTEP_URL": acme.base_url, "COLUMNS": "200"}
        answer = CliRunner().invoke(app, command, env=environment, catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return answer.output

    job = client.generations.create(prompt="a cat", steps=2)
    acme.deployment.succeed(acme.deployment.claim(job.id))
    assert "10.500 of 12.000 left (1.500 spent this month, 0.000 reserved)" in run("budget", "12", "--monthly")
    assert "generation  1     1.500" in run("usage", "--by", "kind")
    assert "jobs: 0 of 100000" in run("limits")
    assert "no limit" in run("budget", "none")
