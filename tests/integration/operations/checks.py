"""Comparing what operators are told with what the jobs themselves say, of one moment."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from api.pages.rendering import percent, size, span
from core.scheduling.fairshare import Priority
from tests.integration.operations import truth
from tests.integration.operations.pinned import Observatory
from tests.integration.operations.telling import Metrics, Page, metrics
from tests.integration.operations.truth import rows
from tests.serving import POOL

_LISTED, _SHOWN = 100, 500  # workers


def check_pool(client: httpx.Client, now: Connection) -> Mapping[str, Any]:
    (pool,) = rows(now, truth.POOL, pool=POOL)
    (told,) = client.get("/v1/admin/pools").json()["data"]
    wait = None if pool["oldest_wait"] is None else float(pool["oldest_wait"])
    assert {name: told[name] for name in pool} == {**pool, "oldest_wait": wait}
    recent = {Priority(row["priority"]).name.lower(): dict(row) for row in rows(now, truth.RECENT, pool=POOL)}
    assert {row["priority"]: row for row in told["recent"]} == {
        name: {**row, "priority": name} for name, row in recent.items()
    }
    failures = {row["code"]: row["failures"] for row in rows(now, truth.FAILURES, pool=POOL)}
    assert {row["code"]: row["failures"] for row in told["failures"]} == failures
    page = Page.read(client.get("/admin"))
    assert page.figures == figures(pool)
    assert {row[0]: row[1:] for row in page.rows(f"Last hour of {POOL}")} == {
        name: [str(row["ended"]), str(row["succeeded"]), span(row["wait_p50"]), span(row["wait_p95"])]
        for name, row in recent.items()
    }
    return pool


def figures(pool: Mapping[str, Any]) -> dict[str, str]:
    """As pages write them."""
    counts = {name: str(pool[name]) for name in ("queued", "running", "workers")}
    return counts | {"oldest wait": span(None if pool["oldest_wait"] is None else float(pool["oldest_wait"]))}


def check_tenants(client: httpx.Client, now: Connection, pool: Mapping[str, Any]) -> None:
    known = rows(now, truth.TENANTS, pool=POOL)
    told = client.get(f"/v1/admin/pools/{POOL}/tenants?limit=100").json()["data"]
    assert [{name: row[name] for name in known[0]} for row in told] == [dict(row) for row in known]
    page = Page.read(client.get(f"/admin/pools/{POOL}"))
    assert page.figures == figures(pool)
    weights = sum(row["weight"] for row in known if row["queued"] or row["running"])
    running = sum(row["running"] for row in known)
    assert [row[:8] for row in page.rows("Tenants")] == [
        [
            row["name"],
            str(row["weight"]),
            f"{100 * row['weight'] / weights:.0f} %" if weights and (row["queued"] or row["running"]) else "–",
            f"{100 * row['running'] / running:.0f} %" if running else "–",
            str(row["running"]),
            str(row["max_running"]),
            str(row["queued"]),
            "paused" if row["paused"] else "",
        ]
        for row in known
    ]
    names = {row["id"]: row["name"] for row in rows(now, "SELECT id, name FROM models")}
    lanes = {
        ":".join(names.get(part, part) for part in row["lane"].split(":")): [
            str(row["queued"]), str(row["running"]), span(row["oldest_wait"] and float(row["oldest_wait"]))
        ]
        for row in rows(now, truth.LANES, pool=POOL)
    }  # fmt: skip
    shown = {row[0]: row[1:] for row in page.rows("Lanes")}
    assert len(shown) == min(len(lanes), 50)
    assert shown.items() <= lanes.items()


def check_workers(client: httpx.Client, now: Connection) -> None:
    known = rows(now, truth.WORKERS)
    told = client.get(f"/v1/admin/workers?limit={_LISTED}").json()["data"]
    assert [row["id"] for row in told] == [row["id"] for row in known[:_LISTED]]
    for row, worker in zip(told, known, strict=False):
        shown = worker.keys() - {"id", "heartbeat_at"}
        assert {name: row[name] for name in shown} == {name: worker[name] for name in shown}
    cells = [[f"{row['host']} {row['pid']}", *device_cells(row)] for row in known]
    page = Page.read(client.get("/admin/workers"))
    written = [[row[0].removesuffix(f" {POOL}"), *row[3:7]] for row in page.rows("Workers")]
    assert written == cells[:_SHOWN]
    page = Page.read(client.get(f"/admin/pools/{POOL}"))
    assert [[row[0], *row[3:7]] for row in page.rows("Workers")] == cells[:_SHOWN]


def device_cells(worker: Mapping[str, Any]) -> list[str]:
    """How pages write a worker's device."""
    return [
        percent(worker["utilization"]),
        f"{size(worker['memory_used_bytes'])} of {size(worker['memory_total_bytes'])}",
        "–" if worker["temperature_c"] is None else f"{worker['temperature_c']:.0f} °C",
        "–" if worker["power_w"] is None else f"{worker['power_w']:.0f} W",
    ]


def check_metrics(client: httpx.Client, now: Connection, pool: Mapping[str, Any]) -> None:
    told = metrics(client)

    def of(name: str, **labels: str) -> float:
        return told["lockstep_" + name, frozenset(labels.items())]

    assert of("jobs_queued", pool=POOL) == pool["queued"]
    assert of("jobs_running", pool=POOL) == pool["running"]
    assert of("oldest_wait_seconds", pool=POOL) == float(pool["oldest_wait"] or 0)
    assert of("pool_paused", pool=POOL) == pool["paused"]
    states = {row["state"]: row["workers"] for row in rows(now, truth.WORKER_COUNTS, pool=POOL)}
    assert {dict(labels)["state"]: n for (name, labels), n in told.items() if name == "lockstep_workers"} == states
    devices = {
        (f"lockstep_device_{name}" + ("_ratio" if name == "utilization" else ""), row["device_kind"]): float(figure)
        for row in rows(now, truth.DEVICES, pool=POOL)
        for name, figure in row.items()
        if name != "device_kind" and figure is not None
    }
    shown = {(name, dict(labels).get("device")): n for (name, labels), n in told.items() if "_device_" in name}
    assert shown == pytest.approx(devices, rel=1e-12)  # floats may be added in another order
    ended = rows(now, truth.ATTEMPTS, pool=POOL)
    assert sum(name == "lockstep_attempts_total" for name, _ in told) == len(ended)
    for row in ended:
        labels = {"pool": POOL, "kind": row["kind"], "outcome": row["outcome"]}
        assert of("attempts_total", **labels) == row["attempts"]
        # Sums of floats, added in another order.
        assert of("attempt_seconds_total", **labels) == pytest.approx(float(row["seconds"]), abs=1e-6)
        assert of("gpu_seconds_total", **labels) == pytest.approx(row["gpu_seconds"], abs=1e-6)
    check_histograms(told, now)
    if ended:
        (estimated,) = rows(now, truth.ESTIMATED, pool=POOL)
        assert told.get(("lockstep_start_estimates_total", frozenset({("pool", POOL)})), 0) == estimated["count"]
    (deliveries,) = rows(now, truth.DELIVERIES)
    assert of("deliveries_pending") == deliveries["pending"]
    assert of("deliveries_held") == deliveries["held"]
    assert of("delivery_lag_seconds") == float(deliveries["lag"])


def check_histograms(told: Metrics, now: Connection) -> None:
    waits = [
        (Priority(row["priority"]).name.lower(), float(row["seconds"])) for row in rows(now, truth.WAITS, pool=POOL)
    ]
    batches = [(row["kind"], float(row["size"])) for row in rows(now, truth.BATCHES, pool=POOL)]
    for name, label, samples in (("wait_seconds", "priority", waits), ("batch_size", "kind", batches)):
        known = {key: sorted(value for of, value in samples if of == key) for key, _ in samples}
        for (sample, labels), value in told.items():
            named = dict(labels)
            match sample.removeprefix(f"lockstep_{name}"):
                case "_bucket":
                    assert value == sum(seen <= float(named["le"]) for seen in known[named[label]])
                case "_count":
                    assert value == len(known[named[label]])
                case "_sum":
                    assert value == pytest.approx(sum(known[named[label]]), abs=1e-6)
        assert {dict(labels)[label] for sample, labels in told if sample == f"lockstep_{name}_count"} == known.keys()
    claimed = sum(value for (sample, _), value in told.items() if sample == "lockstep_batches_total")
    assert claimed == len(batches)


def check_jobs(client: httpx.Client, now: Connection, chance: random.Random) -> None:
    known = rows(now, truth.JOBS)
    told = client.get("/v1/admin/jobs?limit=100").json()["data"]
    assert [{name: row[name] for name in known[0]} for row in told] == [dict(row) for row in known]
    job = chance.choice(known)
    page = Page.read(client.get(f"/admin/jobs/{job['id']}"))
    attempts = rows(now, "SELECT * FROM job_attempts WHERE job_id = :id ORDER BY token", id=job["id"])
    assert [row[0] for row in page.rows("Attempts")] == [str(row["attempt"]) for row in attempts]
    events = rows(now, "SELECT type FROM events WHERE job_id = :id ORDER BY sequence DESC LIMIT 200", id=job["id"])
    assert [row[1] for row in page.rows("Events")] == [row["type"] for row in events]


def check(client: httpx.Client, observatory: Observatory, chance: random.Random) -> None:
    with observatory.moment() as now:
        pool = check_pool(client, now)
        check_tenants(client, now, pool)
        check_workers(client, now)
        check_metrics(client, now, pool)
        check_jobs(client, now, chance)
