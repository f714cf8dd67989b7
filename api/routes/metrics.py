"""`/metrics`: what Postgres knows, in Prometheus' text format. Labels are pools, kinds, outcomes and states: few."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from api.dependencies import OperatorSession
from core.jobs.tallying import WAIT_BOUNDS
from core.operations.figures import Figures, figures
from core.scheduling.fairshare import Priority

router = APIRouter(tags=["Operations"])

_BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, math.inf)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class _Told:
    """A collector of figures that were read already."""

    def __init__(self, told: Figures) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from _of_pools(self._told)
        yield from _of_devices(self._told)
        yield from _of_attempts(self._told)
        yield _of_waits(self._told)
        yield from _of_batches(self._told)
        yield from _of_estimates(self._told)
        yield _of_invariants(self._told)
        yield from _of_deliveries(self._told)


def _of_pools(told: Figures) -> Iterator[Metric]:
    queued = GaugeMetricFamily("lockstep_jobs_queued", "Jobs that could be claimed, up to 10,000.", labels=["pool"])
    running = GaugeMetricFamily("lockstep_jobs_running", "Jobs that a worker holds, up to 10,000.", labels=["pool"])
    oldest = GaugeMetricFamily(
        "lockstep_oldest_wait_seconds", "How long the first job of a tenant whose turn may come waits.", labels=["pool"]
    )
    paused = GaugeMetricFamily("lockstep_pool_paused", "1 where an operator has paused the pool.", labels=["pool"])
    workers = GaugeMetricFamily("lockstep_workers", "Workers that live, by state.", labels=["pool", "state"])
    for pool in told.pools:
        queued.add_metric([pool.name], pool.queued)
        running.add_metric([pool.name], pool.running)
        oldest.add_metric([pool.name], float(pool.oldest_wait or 0))
        paused.add_metric([pool.name], float(pool.paused_at is not None))
    for row in told.workers:
        workers.add_metric([row.pool, row.state], row.workers)
    yield from (queued, running, oldest, paused, workers)


def _of_devices(told: Figures) -> Iterator[Metric]:
    labels = ["pool", "device"]
    load = GaugeMetricFamily(
        "lockstep_device_utilization_ratio", "Load of living workers' devices, mean.", labels=labels
    )
    used = GaugeMetricFamily("lockstep_device_memory_used_bytes", "Memory taken on those devices.", labels=labels)
    size = GaugeMetricFamily("lockstep_device_memory_bytes", "Memory of those devices.", labels=labels)
    heat = GaugeMetricFamily(
        "lockstep_device_temperature_celsius", "Temperature of the hottest of them.", labels=labels
    )
    power = GaugeMetricFamily("lockstep_device_power_watts", "Power that they draw together.", labels=labels)
    for row in told.vitals:
        figures = (
            (load, row.utilization), (used, row.memory_used), (size, row.memory_total), (heat, row.temperature),
            (power, row.power),
        )  # fmt: skip
        for metric, value in figures:
            if value is not None:
                metric.add_metric([row.pool, row.device_kind], float(value))
    yield from (load, used, size, heat, power)


def _of_attempts(told: Figures) -> Iterator[Metric]:
    labels = ["pool", "kind", "outcome"]
    attempts = CounterMetricFamily("lockstep_attempts", "Attempts that ended, by how.", labels=labels)
    seconds = CounterMetricFamily("lockstep_attempt_seconds", "How long those attempts took.", labels=labels)
    gpu = CounterMetricFamily("lockstep_gpu_seconds", "GPU-seconds that those attempts took.", labels=labels)
    for row in told.tallies:
        named = [row.pool, row.kind, row.outcome]
        attempts.add_metric(named, row.attempts)
        seconds.add_metric(named, row.seconds)
        gpu.add_metric(named, row.gpu_seconds)
    yield from (attempts, seconds, gpu)


def _of_waits(told: Figures) -> Metric:
    waits = HistogramMetricFamily(
        "lockstep_wait_seconds", "From a job's acceptance to its first start.", labels=["pool", "priority"]
    )
    for (pool, priority), rows in groupby(told.waits, key=lambda row: (row.pool, row.priority)):
        tallies = {row.bound: row for row in rows}
        counts = [tallies[bound].starts if bound in tallies else 0 for bound in WAIT_BOUNDS]
        seconds = sum(row.seconds for row in tallies.values())
        waits.add_metric([pool, Priority(priority).name.lower()], _buckets(WAIT_BOUNDS, counts), seconds)
    return waits


def _of_batches(told: Figures) -> Iterator[Metric]:
    sizes = HistogramMetricFamily("lockstep_batch_size", "Jobs that one claim took.", labels=["pool", "kind"])
    claims = CounterMetricFamily(
        "lockstep_batches", "Batches, by whether the worker held the model.", labels=["pool", "kind", "warm"]
    )
    for (pool, kind), grouped in groupby(told.batches, key=lambda row: (row.pool, row.kind)):
        rows = list(grouped)
        counts = [0] * len(_BATCH_BOUNDS)
        for row in rows:
            counts[bisect.bisect_left(_BATCH_BOUNDS, row.size)] += row.batches
        jobs = sum(row.size * row.batches for row in rows)
        sizes.add_metric([pool, kind], _buckets(_BATCH_BOUNDS, counts), jobs)
        for warm in (False, True):
            held = sum(row.batches for row in rows if row.warm is warm)
            claims.add_metric([pool, kind, str(warm).lower()], held)
    yield from (sizes, claims)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """As Prometheus wants them: how many are not above each bound."""
    return [
        ("+Inf" if bound == math.inf else str(bound), total)
        for bound, total in zip(bounds, accumulate(counts), strict=True)
    ]


def _of_deliveries(told: Figures) -> Iterator[Metric]:
    row = told.deliveries
    yield GaugeMetricFamily(
        "lockstep_deliveries_pending", "Webhook deliveries that are owed, up to 10,000.", row.pending
    )
    yield GaugeMetricFamily(
        "lockstep_deliveries_held", "Those that wait for a disabled endpoint, up to 10,000.", row.held
    )
    yield GaugeMetricFamily(
        "lockstep_delivery_lag_seconds", "How long the first due delivery is overdue.", float(row.lag)
    )


def _of_estimates(told: Figures) -> Iterator[Metric]:
    samples = CounterMetricFamily(
        "lockstep_start_estimates", "Starts that were compared with their estimate.", labels=["pool"]
    )
    kept = CounterMetricFamily(
        "lockstep_start_estimates_kept", "Starts no later than their estimate.", labels=["pool", "quantile"]
    )
    for row in told.calibrations:
        samples.add_metric([row.pool], row.samples)
        kept.add_metric([row.pool, "0.5"], row.within_median)
        kept.add_metric([row.pool, "0.9"], row.within_high)
    yield from (samples, kept)


def _of_invariants(told: Figures) -> Metric:
    broken = GaugeMetricFamily(
        "lockstep_invariant_broken", "How many broke it when maintenance last looked.", labels=["invariant"]
    )
    for row in told.invariants:
        broken.add_metric([row.name], row.broken)
    return broken


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(session: OperatorSession) -> Response:
    """Tell the figures of all pools, to an operator's key. They come from Postgres: a restart changes none of them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(await figures(session)))
    return Response(generate_latest(registry), media_type=_TEXT)
