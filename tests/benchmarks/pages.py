"""Measures how long the operators' pages take with a million jobs in the table and a long queue.

Pages are asked for by turns over HTTP, of the real API on a Postgres of its own. The baseline is the same page with a
hundred jobs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

import httpx
from sqlalchemy.orm import Session

from core.tenants.keys import SCOPES
from core.tenants.provisioning import create_key, create_tenant, make_operator
from tests.benchmarks.dispatch import Ground, durable_ground
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.retention import fill
from tests.benchmarks.scheduling.backlog import Backlog, claim, finish
from tests.serving import POOL, serving

_MOST_MS: Final = 300.0


@dataclass(frozen=True)
class Size:
    """How much lies in the tables."""

    tenants: int = 1000
    old: int = 900  # jobs of each that ended
    queued: int = 100  # of each
    ended: int = 2000  # within the last hour


LARGE, SMALL = Size(), Size(tenants=5, old=10, queued=10, ended=16)
QUICK = Size(tenants=20, old=20, queued=5, ended=16)


@contextmanager
def deployment(ground: Ground, name: str, size: Size) -> Iterator[tuple[httpx.Client, Mapping[str, str]]]:
    """An operator's client of an API over so many jobs, and the pages by their names."""
    with ground.queue(name) as (queue, settings), serving(settings) as url:
        _fill(queue, size)
        with Session(queue.owner) as session, session.begin():
            tenant_id = create_tenant(session, "operators").id
            make_operator(session, tenant_id)
            key = create_key(session, tenant_id, "operator", SCOPES)
        job = queue.one("SELECT id, tenant_id FROM jobs WHERE state = 'queued' ORDER BY id DESC LIMIT 1")
        pages = {
            "pools": "/admin",
            "a pool": f"/admin/pools/{POOL}",
            "workers": "/admin/workers",
            "jobs": "/admin/jobs",
            "jobs that failed": "/admin/jobs?state=failed",
            "jobs of a tenant": f"/admin/jobs?tenant={job['tenant_id']}",
            "a queued job": f"/admin/jobs/{job['id']}",
            "tenants": "/admin/tenants",
            "a tenant": f"/admin/tenants/{job['tenant_id']}",
            "webhooks": "/admin/webhooks",
            "models": "/admin/models",
            "audit": "/admin/audit",
            "metrics": "/metrics",
        }
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/html"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            yield client, pages


def _fill(queue: Backlog, size: Size) -> None:
    tenants = queue.tenants("t", size.tenants)
    fill(queue, tenants, size.old)
    queue.fill(tenants, size.queued)
    queue.vacuum()
    for _ in range(size.ended // 8):
        with queue.sessions.begin() as session:
            jobs = claim(session, 8)
        with queue.sessions.begin() as session:
            finish(session, jobs, [0.1] * len(jobs))


def measure(report: Report, ground: Ground, size: Size, rounds: int) -> None:
    """Ask for every page of both, by turns."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        both = {
            "large": stack.enter_context(deployment(ground, "large", size)),
            "small": stack.enter_context(deployment(ground, "small", SMALL)),
        }
        for number in range(rounds + 1):
            for which, (client, pages) in both.items():
                for page, path in pages.items():
                    began = time.perf_counter()
                    client.get(path).raise_for_status()
                    if number:  # the first prepares statements and templates
                        seconds[page, which].append(time.perf_counter() - began)
        names = list(both["large"][1])
    rows = []
    for page in names:
        mine, small = (1000 * median(seconds[page, which]) for which in ("large", "small"))
        figure = f"milliseconds of the page: {page}"
        report.add(figure, mine, baseline=small)
        report.expect(figure, "<=", _MOST_MS)
        rows.append((page, mine, 1000 * max(seconds[page, "large"]), small))
    jobs = size.tenants * (size.old + size.queued)
    print_table(f"Milliseconds with {jobs} jobs", ("page", "median", "longest", "with 100 jobs"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    given = argument_parser("pages", __doc__).parse_args(arguments)
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK if given.quick else LARGE, 3 if given.quick else 20)
    report.finish(given.json)


if __name__ == "__main__":
    main()
