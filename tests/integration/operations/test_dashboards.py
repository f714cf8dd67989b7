"""Dashboards and alerts ask for nothing that `/metrics` does not tell, and every metric is documented and looked at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.tenants.provisioning import make_operator
from tests.architecture.source import ROOT
from tests.integration.operations.queries import RULES, Query, queries
from tests.serving import POOL, Deployment, Tenant, serving

DOCS = ROOT / "docs" / "operations.md"

# One row of everything that is told, so that every metric has a sample with all its labels.
ROWS = f"""
    INSERT INTO attempt_tallies VALUES ('{POOL}', 'generation', 'succeeded', 3, 1.5, 1.5);
    INSERT INTO wait_tallies VALUES ('{POOL}', 0, 0.5, 3, 0.9), ('{POOL}', 1, 'Infinity', 1, 7200);
    INSERT INTO batch_tallies VALUES ('{POOL}', 'generation', true, 3, 2), ('{POOL}', 'generation', false, 8, 1);
    INSERT INTO start_calibrations VALUES ('{POOL}', 8, 0, 0, 4, 7);
    INSERT INTO invariant_looks (name, broken, looked_at) VALUES ('overdue-jobs', 0, now());
    INSERT INTO workers (id, pool, host, pid, state, device_kind, utilization, memory_used_bytes, memory_total_bytes,
        temperature_c, power_w) VALUES ('wrk_1', '{POOL}', 'h', 1, 'idle', 'gpu', 0.5, 1, 2, 50, 300);
"""

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def exposition(deployment: Deployment) -> str:
    """What `/metrics` answers."""
    with serving(deployment.settings) as url:
        operator = Tenant(deployment, url, "operators")
        with Session(deployment.owner) as session, session.begin():
            make_operator(session, operator.id)
            session.execute(text(ROWS))
        with operator.http:
            response = operator.http.get("/metrics")
    assert response.status_code == 200
    return response.text


@pytest.fixture(scope="module")
def known(exposition: str) -> Labels:
    """Every name that a query may ask for, with its labels."""
    labels: Labels = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.place)
def test_a_query_asks_for_what_is_told(known: Labels, query: Query):
    selectors = query.selectors()
    assert selectors
    for name, chosen_by in selectors.items():
        assert name in known
        assert chosen_by <= known[name]
    assert query.grouped_by() | query.told_by <= set().union(*(known[name] for name in selectors))


def test_every_metric_is_on_a_dashboard(known: Labels):
    asked = {name for query in queries() for name in query.selectors()}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    assert families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == set()


def test_every_metric_is_documented_with_its_labels(exposition: str, known: Labels):
    page = DOCS.read_text()
    for line in re.findall(r"^# TYPE (\w+) (\w+)$", exposition, flags=re.MULTILINE):
        name, kind = line
        (row,) = re.findall(rf"^\| `{name}` \|([^|]*)\|", page, flags=re.MULTILINE)
        labels = known[f"{name}_bucket" if kind == "histogram" else name] - {"le"}
        assert set(re.findall(r"`(\w+)`", row)) == labels


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_containers_find_their_files():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name in ("prometheus", "grafana"):
        service = compose["services"][name]
        assert service["profiles"] == ["observe"]
        mounted = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
        assert mounted
        assert all((ROOT / Path(path)).exists() for path in mounted)
