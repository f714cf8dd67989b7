"""Put the whole system to a seeded schedule of faults under load, heal it, and see what is true afterwards.

    python -m tests.chaos.run --minutes 10 --seed 1 2 3 [--rival celery] [--json FILE] [--logs FOLDER]

With a rival, the same seeds are put to that instead. Exits with 1 when anything was lost, doubled or broken; how long
it took to recover is told, not judged.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from tests.benchmarks.report import Report, print_table
from tests.chaos.faults import Done, Nemesis
from tests.chaos.plan import Kind, plan
from tests.chaos.product import Product, product
from tests.chaos.recovery import Try, recoveries, summary
from tests.chaos.rig import rig
from tests.chaos.rival import Rival, rival
from tests.engine.tiny import build_tiny_pipeline

EVERY_SECONDS = 5.0
FAULTS, OF_EACH = 200, 10  # over all seeds of a run
AFTERWARDS_SECONDS = 15.0  # of load after the last fault
_PATIENCE_SECONDS = 400.0  # until everything has ended


@dataclass
class Outcome:
    """What one seed came to."""

    seed: int
    done: list[Done] = field(default_factory=list)
    missed: list[tuple[Kind, str]] = field(default_factory=list)
    accepted: list[tuple[float, float]] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    repeated_deliveries: int = 0
    quiet_after: float = 0.0
    wrong: dict[str, list[str]] = field(default_factory=dict)


_OUTCOME = TypeAdapter(Outcome)
SYSTEMS: Mapping[str, Callable[..., AbstractContextManager[Product | Rival]]] = {
    "lockstep": product,
    "celery": rival,
}


def endure(
    seed: int,
    model: Path,
    *,
    seconds: float,
    every: float = EVERY_SECONDS,
    afterwards: float = AFTERWARDS_SECONDS,
    system: str = "lockstep",
    keep: Path | None = None,
) -> Outcome:
    """Run one seed from an empty system to its verdict; from the main thread."""
    with rig(keep=keep) as stage, SYSTEMS[system](stage, model, seed=seed) as tried:
        nemesis = Nemesis(stage, plan(seed, seconds=seconds, every=every))
        thread = threading.Thread(target=nemesis.run, name="nemesis", daemon=True)
        thread.start()
        stage.watch(until=lambda: not thread.is_alive())
        healed = time.monotonic()
        stage.watch(until=lambda: time.monotonic() > healed + afterwards)
        tried.load.stop()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        stage.watch(until=lambda: tried.load.silent.is_set() or time.monotonic() > deadline)
        stage.watch(until=lambda: tried.is_quiet() or time.monotonic() > deadline)
        quiet_after = time.monotonic() - healed
        heard = tried.load.heard
        return Outcome(
            seed,
            nemesis.done,
            nemesis.missed,
            tried.load.accepted,
            tried.tries(),
            tried.states(),
            tried.load.acts,
            tried.load.deliveries,
            tried.load.deliveries - len(heard),
            quiet_after,
            tried.verdict(),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds one after the other, print what came of each, and report the whole."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of faults, for each seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--rival", choices=["celery"], help="what the seeds are put to in place of Lockstep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and targets here")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs of every part here")
    parser.add_argument("--outcomes", type=Path, metavar="FOLDER", help="keep what each seed came to here, and go on")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # mounts and processes must not be left behind
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_pipeline(Path(folder) / "tiny")
        for seed in given.seed:
            outcome = _known(given.outcomes, seed)
            if outcome is None:
                keep = None if given.logs is None else given.logs / str(seed)
                outcome = endure(seed, model, seconds=given.minutes * 60, system=given.rival or "lockstep", keep=keep)
                _note(given.outcomes, outcome)
            print_outcome(outcome)
            outcomes.append(outcome)
    report = Report()
    tell(report, outcomes)
    report.finish(given.json)
    sys.exit(any(ids for outcome in outcomes for ids in outcome.wrong.values()))


def _known(folder: Path | None, seed: int) -> Outcome | None:
    """What a seed came to that was run before."""
    file = None if folder is None else folder / f"{seed}.json"
    return _OUTCOME.validate_json(file.read_bytes()) if file is not None and file.exists() else None


def _note(folder: Path | None, outcome: Outcome) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{outcome.seed}.json").write_bytes(_OUTCOME.dump_json(outcome))


def print_outcome(outcome: Outcome) -> None:
    """Say what came of one seed."""
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(outcome.ends.items()))
    print(f"\nSeed {outcome.seed}: {len(outcome.done)} faults; {len(outcome.accepted)} jobs accepted, {jobs}")
    print(f"  quiet {outcome.quiet_after:.0f} s after the last fault; {outcome.deliveries} deliveries")
    for kind, why in outcome.missed:
        print(f"  not made: {kind} ({why})")
    for done in outcome.done:
        if done.note:
            print(f"  made: {done.kind} ({done.note})")
    for name, ids in outcome.wrong.items():
        print(f"  {'WRONG' if ids else 'good '}  {name}: {len(ids)}", *ids[:5], sep="\n           " if ids else "")
    sys.stdout.flush()


def tell(report: Report, outcomes: Sequence[Outcome]) -> None:
    """Add the figures of all seeds together."""
    faults = [done for outcome in outcomes for done in outcome.done]
    per_kind = Counter(done.kind for done in faults)
    report.add("faults", len(faults))
    report.expect("faults", ">=", FAULTS)
    for kind in Kind:
        report.add(f"times: {kind}", per_kind[kind])
        report.expect(f"times: {kind}", ">=", OF_EACH)
    for name, count in _sums(outcomes).items():
        report.add(name, count)
    for name in outcomes[0].wrong:
        report.add(name, sum(len(outcome.wrong[name]) for outcome in outcomes))
        report.expect(name, "<=", 0)
    _tell_recovery(report, outcomes, per_kind)


def _sums(outcomes: Sequence[Outcome]) -> dict[str, float]:
    states = sum((outcome.ends for outcome in outcomes), Counter[str]())
    attempts = Counter(tried.outcome for outcome in outcomes for tried in outcome.tries)
    acts = sum((outcome.acts for outcome in outcomes), Counter[str]())
    return {
        "jobs accepted": sum(len(outcome.accepted) for outcome in outcomes),
        **{f"jobs {state}": count for state, count in sorted(states.items())},
        **{f"attempts {outcome}": count for outcome, count in sorted(attempts.items())},
        **{f"acts: {act}": count for act, count in sorted(acts.items())},
        "webhook deliveries heard": sum(outcome.deliveries for outcome in outcomes),
        "of these heard before": sum(outcome.repeated_deliveries for outcome in outcomes),
        "longest seconds until quiet": max(outcome.quiet_after for outcome in outcomes),
    }


def _tell_recovery(report: Report, outcomes: Sequence[Outcome], per_kind: Counter[Kind]) -> None:
    found = [recoveries(outcome.done, outcome.accepted, outcome.tries) for outcome in outcomes]
    rows: list[list[str | float | int]] = []
    for kind in Kind:
        merged = {
            name: [seconds for one in found if kind in one for seconds in getattr(one[kind], name)]
            for name in ("accepting", "working", "back")
        }
        for name, seconds in merged.items():
            if seconds:
                report.add(f"{kind}: longest seconds until {name}", max(seconds))
        cells = [cell for name in merged for cell in summary(merged[name])]
        rows.append([kind.value, per_kind[kind], *cells])
    columns = ("fault", "times", "accepting", "longest", "working", "longest", "work back", "longest")
    print_table("Seconds until it works again: median and longest of each kind", columns, rows)


if __name__ == "__main__":
    main()
