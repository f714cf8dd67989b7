"""Simulates days of traffic on the claims' own selection, and writes the page on what to do as a deployment grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from core.scheduling.fairshare import Priority
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.scheduling.simulation import DAY, Outcome, Simulation, World

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = Path(__file__).parent / "scheduling" / "growth.md"
_COLUMNS: Final = (
    "deployment", "at work", "loading", "loads per 100 batches", "wait p50", "wait p95", "low p95", "high p95",
    "claims a minute, most",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A deployment with a name."""

    name: str
    world: World


def sizes(scale: float) -> list[Case]:
    """The same traffic per GPU at three sizes."""
    return [
        Case("8 GPUs, 100 tenants", World(8, 100, int(17_000 * scale))),
        Case("100 GPUs, 1,000 tenants", World(100, 1000, int(210_000 * scale))),
        Case("1,000 GPUs, 10,000 tenants", World(1000, 10_000, int(2_000_000 * scale))),
    ]


def choices(scale: float) -> list[Case]:
    """What may be changed about 100 GPUs that have grown too small."""
    world = World(100, 1000, int(230_000 * scale))
    return [
        Case("one pool", world),
        Case("a tenth more GPUs", replace(world, gpus=110)),
        Case("4 pools of tenants", replace(world, pools=4)),
        Case("4 pools of models", replace(world, pools=4, pools_by_model=True)),
        Case("GPUs that hold 6 models", replace(world, warm=6)),
        Case("batches of 16", replace(world, room=16)),
    ]


def measure(report: Report, cases: Sequence[Case], title: str) -> str:
    """Run every case; return its table for the page."""
    rows = []
    for case in cases:
        started = time.monotonic()
        outcome = Simulation(case.world).run()
        print(f"{case.name}: {outcome.jobs} jobs in {time.monotonic() - started:.0f} s", flush=True)
        for figure, value in _figures(case.world, outcome).items():
            report.add(f"{figure}: {case.name}", value)
        rows.append((case.name, *_row(case.world, outcome)))
    print_table(title, _COLUMNS, rows)
    lines = ["| " + " | ".join(line) + " |" for line in (_COLUMNS, ("---",) * len(_COLUMNS), *rows)]
    return "\n".join(lines)


def _figures(world: World, outcome: Outcome) -> dict[str, float]:
    gpu_seconds = world.gpus * max(outcome.ended_at, DAY)
    return {
        "share of GPU time at work": outcome.busy_seconds / gpu_seconds,
        "share of GPU time loading": outcome.loading_seconds / gpu_seconds,
        "loads per 100 batches": 100 * outcome.loads / max(1, outcome.claims),
        "seconds waited, p50": outcome.wait(0.5),
        "seconds waited, p95": outcome.wait(0.95),
        "seconds waited, p95, low": outcome.wait(0.95, Priority.LOW),
        "seconds waited, p95, high": outcome.wait(0.95, Priority.HIGH),
        "claims in a pool's busiest minute": float(outcome.most_claims),
    }


def _row(world: World, outcome: Outcome) -> tuple[str, ...]:
    work, loading, loads, *waits, claims = _figures(world, outcome).values()
    shares = (f"{100 * work:.0f} %", f"{100 * loading:.0f} %", f"{loads:.0f}")
    return (*shares, *(f"{wait:.0f} s" if wait >= 10 else f"{wait:.1f} s" for wait in waits), f"{claims:.0f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate everything and write the page."""
    parser = argument_parser("growth", __doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/growth.md", help="write the page here")
    given = parser.parse_args(arguments)
    report, scale = Report(), 0.01 if given.quick else 1.0
    tables = {
        "sizes": measure(report, sizes(scale), "The same traffic for each GPU"),
        "choices": measure(report, choices(scale), "What helps"),
    }
    given.page.write_text(TEXT.read_text().format(**tables))
    report.finish(given.json)


if __name__ == "__main__":
    main()
