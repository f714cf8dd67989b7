"""Measures how long webhooks take to healthy endpoints while others are dead: from the commit to the arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from typing import Final

from core.jobs.events import Happening, Verb, record_async
from core.webhooks import redelivery, subscriptions
from core.webhooks.sender import SendLimits
from tests.benchmarks.dispatch import Ground, durable_ground
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.scheduling.latency import part
from tests.integration.webhooks.conftest import LOOPBACK, Outbox
from tests.integration.webhooks.receiver import HANG, Drip, Receiver, receiving

TOLD: Final = "generation.progress"
OWED: Final = "generation.started"
SHARES: Final = {"p50": 50, "p99": 99}
_DAY: Final = timedelta(days=1)
_PATIENCE: Final = 60.0  # seconds for what is owed to dead endpoints to end


@dataclass(frozen=True)
class Dead:
    """Endpoints that never answer, one a tenant, and what they do instead."""

    name: str
    tenants: int
    answer: bytes = HANG


NONE: Final = Dead("none", 0)
PROMISED: Final = (
    Dead("one that hangs", 1),
    Dead("one that drips", 1, Drip(b"HTTP/1.1 200 OK\r\nx-dripping: ")),
)
MANY: Final = Dead("one in every tenant, all hanging", 20)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int = 5
    warmup: int = 50  # events in each case of each run that are not counted
    events: int = 950  # and those that are, for longer than a request to a dead endpoint lasts
    rate: float = 50.0  # a second, over all tenants
    tenants: int = 20
    owed: int = 50  # events of each tenant that its dead endpoint is behind with


QUICK = Size(runs=1, warmup=5, events=20, rate=20.0, tenants=2, owed=3)


class Customers:
    """Tenants with an endpoint each that answers at once, and a job each that events tell of."""

    def __init__(self, outbox: Outbox, receiver: Receiver) -> None:
        self.outbox = outbox
        self.receiver = receiver
        self.tenants: list[str] = []
        self.jobs: list[str] = []
        self._told = 0

    async def join(self, size: Size) -> None:
        """Make them, with some events that nobody is owed yet."""
        for number in range(size.tenants):
            tenant_id = await self.outbox.tenant(f"tenant {number}")
            await self.outbox.endpoint(tenant_id, self.receiver.url(), TOLD)
            (event_id,) = await self.outbox.happen(tenant_id)
            self.tenants.append(tenant_id)
            self.jobs.append(f"job_{event_id[4:-6]}")
            for _ in range(size.owed):
                await self._tell(number, Verb.STARTED)

    async def delays(self, size: Size) -> list[float]:
        """Let events happen at the rate, to one tenant after the other; seconds from each commit to its arrival."""
        committed: list[tuple[int, float]] = []
        before, started = len(self.receiver.requests), time.monotonic()
        for count in range(size.warmup + size.events):
            await asyncio.sleep(started + count / size.rate - time.monotonic())
            number = count % len(self.tenants)
            await self._tell(number, Verb.PROGRESS)
            committed.append((number, time.monotonic()))
        arrived: dict[str, float] = {}
        for request in (await self.receiver.has(before + len(committed)))[before:]:
            arrived.setdefault(request.id, request.at)
        # A job's events have ids that sort as they happened.
        waiting = {job_id: iter(sorted(id_ for id_ in arrived if id_[4:-6] == job_id[4:])) for job_id in self.jobs}
        delays = [max(0.0, arrived[next(waiting[self.jobs[number]])] - at) for number, at in committed]
        return delays[size.warmup :]

    async def _tell(self, number: int, verb: Verb) -> None:
        async with self.outbox.as_api(self.tenants[number]) as session:
            await record_async(session, [Happening(self.jobs[number], verb)])

    @asynccontextmanager
    async def beside(self, dead: Dead, size: Size) -> AsyncIterator[None]:
        """With dead endpoints that hold all their places; nothing of them is left afterwards."""
        async with receiving() as receiver:
            receiver.will_answer(dead.answer)
            made = [(tenant_id, await self._behind(tenant_id, receiver)) for tenant_id in self.tenants[: dead.tenants]]
            await receiver.has(min(size.owed, SendLimits().per_endpoint) * len(made))
            yield
            for tenant_id, endpoint_id in made:
                async with self.outbox.as_api(tenant_id) as session:
                    await subscriptions.delete_endpoint(session, endpoint_id)
            receiver.release()
            async with asyncio.timeout(_PATIENCE):
                while await self.outbox.rows(  # noqa: ASYNC110 - a table tells nobody
                    "SELECT 1 FROM webhook_deliveries WHERE state = 'pending' LIMIT 1"
                ):
                    await asyncio.sleep(0.2)

    async def _behind(self, tenant_id: str, receiver: Receiver) -> str:
        """An endpoint that is owed what happened before, and wants to know what happens now."""
        endpoint = await self.outbox.endpoint(tenant_id, receiver.url(), OWED)
        async with self.outbox.as_api(tenant_id) as session:
            await redelivery.recover(session, endpoint.id, since=datetime.now(UTC) - _DAY, until=None)
            await subscriptions.update_endpoint(session, endpoint.id, policy=LOOPBACK, event_types=[TOLD, OWED])
        return endpoint.id


async def measure_delays(outbox: Outbox, size: Size) -> dict[Dead, list[list[float]]]:
    """The delays of each case in each run."""
    cases = [NONE, *PROMISED, MANY]
    delays: dict[Dead, list[list[float]]] = {case: [] for case in cases}
    async with receiving() as receiver:
        customers = Customers(outbox, receiver)
        await customers.join(size)
        await customers.delays(size)  # opens connections and prepares statements
        for run in range(size.runs):
            first = run % len(cases)
            for case in cases[first:] + cases[:first]:
                async with customers.beside(case, size):
                    delays[case].append(await customers.delays(size))
    await outbox.owners.dispose()
    await outbox.api.dispose()
    return delays


def measure(report: Report, ground: Ground, size: Size) -> None:
    """Measure delays beside dead endpoints, and say how they compare with those beside none."""
    with ground.queue("webhooks") as (_, settings):
        here = settings.model_copy(update={"webhook_allow": ("127.0.0.0/8",)})
        with part("workers.maintain", here, ground.folder):
            delays = asyncio.run(measure_delays(Outbox(settings.owner_dsn), size))
    found = {case: {name: _of(runs, share) for name, share in SHARES.items()} for case, runs in delays.items()}
    rows: list[tuple[str, float, float, float]] = []
    for case, figures in found.items():
        ratio = median(mine / none for mine, none in zip(figures["p99"], found[NONE]["p99"], strict=True))
        rows.append((case.name, 1000 * median(figures["p50"]), 1000 * median(figures["p99"]), ratio))
        if case is NONE:
            continue
        for name in SHARES:
            none = 1000 * median(found[NONE][name])
            report.add(
                f"milliseconds to healthy endpoints, {name}, dead: {case.name}",
                1000 * median(figures[name]),
                baseline=none,
            )
        report.add(f"p99 over that beside none, dead: {case.name}", ratio)
        if case in PROMISED:
            report.expect(f"p99 over that beside none, dead: {case.name}", "<=", 1.5)
    print_table(
        f"Milliseconds from commit to arrival at {size.tenants} healthy endpoints; medians of {size.runs} runs",
        ("dead endpoints", "p50", "p99", "p99 over none's"),
        rows,
    )


def _of(runs: Sequence[Sequence[float]], share: int) -> list[float]:
    return [quantiles(delays, n=100)[share - 1] for delays in runs]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and say what was met."""
    given = argument_parser("webhooks", __doc__).parse_args(arguments)
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK if given.quick else Size())
    report.finish(given.json)


if __name__ == "__main__":
    main()
