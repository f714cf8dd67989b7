"""Distils a ring of eight Gaussians by the engine's trainer, where every score is known, over several seeds.

What distribution matching does without its fake score, at too few updates of it, with regression, alone, with a
discriminator, and in several steps; beside them the teacher at 50 steps and real samples, by the same measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tests.benchmarks.report import Report, argument_parser, print_table
from tests.engine.dmd.ladder import MATCHING, Outcome, descend_without_fake_score, distil_ring
from tests.engine.dmd.mixture import SHAPE, Coverage, Ring, draw_teacher, ring_schedule
from workers.engine.dmd.config import DistillationConfig

SAMPLES = 4000
ONE_TO_ONE = replace(MATCHING, critic_ratio=1)
RUNS = {
    "matching 1:1": ONE_TO_ONE,
    "matching 2:1": replace(MATCHING, critic_ratio=2),
    "matching 5:1": MATCHING,
    "matching 5:1, rates falling": replace(MATCHING, decay_share=0.5),
    "matching and regression 1:1": replace(ONE_TO_ONE, regression_weight=0.25),
    "matching and regression 5:1": replace(MATCHING, regression_weight=0.25),
    "regression alone": replace(MATCHING, matching_weight=0.0, regression_weight=0.25),
    "matching and discriminator 5:1": replace(MATCHING, gan_weight=3e-3),
    "two steps 5:1": replace(MATCHING, student_timesteps=(999, 499)),
    "four steps 5:1": replace(MATCHING, student_timesteps=(999, 749, 499, 249)),
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    steps: int = 300
    seeds: int = 5


QUICK = Size(steps=20, seeds=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("dmd_ladder", __doc__)
    parser.add_argument("--steps", type=int, help="updates of the student in every run")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    size = replace(size, steps=given.steps or size.steps)
    torch.set_num_threads(1)
    report = Report()
    measure_ends(report)
    outcomes = {name: measure_run(report, name, config, size) for name, config in RUNS.items()}
    measure_collapse(report, size)
    _print_outcomes(outcomes, size)
    _expect(report)
    report.finish(given.json)


def measure_ends(report: Report) -> None:
    """Measure what real samples get, which is the floor, and what the teacher gets at 50 steps."""
    ring, generator = Ring(ring_schedule()), torch.Generator().manual_seed(0)
    real = Coverage.of(ring.sample(SAMPLES, generator))
    teacher = Coverage.of(draw_teacher(ring, torch.randn((SAMPLES, *SHAPE), generator=generator)))
    ends = {"real": real, "teacher": teacher}
    for name, coverage in ends.items():
        report.add(f"{name}: distance", coverage.distance)
        report.add(f"{name}: total variation", coverage.total_variation)
        report.add(f"{name}: modes", coverage.modes)
    print_table(
        f"What there is to reach: {SAMPLES} samples",
        ("samples", "modes", "distance", "total variation", "near"),
        [(name, end.modes, end.distance, end.total_variation, end.near) for name, end in ends.items()],
    )


def measure_run(report: Report, name: str, config: DistillationConfig, size: Size) -> list[Outcome]:
    """Distil once for every seed; report the range of each figure over the seeds."""
    outcomes = [distil_ring(replace(config, steps=size.steps), seed=seed) for seed in range(size.seeds)]
    figures = {
        "modes": [float(outcome.coverage.modes) for outcome in outcomes],
        "swing": [outcome.swing for outcome in outcomes],
        "distance": [outcome.coverage.distance for outcome in outcomes],
        "total variation": [outcome.coverage.total_variation for outcome in outcomes],
        "map distance": [outcome.map_distance for outcome in outcomes],
    }
    for figure, values in figures.items():
        report.add(f"{name}: least {figure}", min(values))
        report.add(f"{name}: most {figure}", max(values))
    return outcomes


def measure_collapse(report: Report, size: Size) -> None:
    """Measure the spread of a student that followed the teacher's score alone."""
    config = replace(MATCHING, steps=size.steps)
    spreads = [float(descend_without_fake_score(config, seed=seed).std((0, 2, 3)).max()) for seed in range(size.seeds)]
    report.add("no fake score: most spread", max(spreads))


def _expect(report: Report) -> None:
    report.expect("no fake score: most spread", "<=", 0.1)
    report.expect("matching 1:1: least swing", ">=", 0.6)
    report.expect("matching 1:1: most modes", "<=", 4)
    report.expect("matching 5:1: most swing", "<=", 0.1)
    report.expect("matching 5:1: least modes", ">=", 8)
    report.expect("matching 5:1: most distance", "<=", 0.2)
    report.expect("matching and regression 1:1: most swing", "<=", 0.6)
    report.expect("matching and regression 1:1: most map distance", "<=", 0.7)


def _print_outcomes(outcomes: dict[str, list[Outcome]], size: Size) -> None:
    rows = [
        (
            name,
            " ".join(str(outcome.coverage.modes) for outcome in of_seeds),
            *(
                f"{min(values):.3f} to {max(values):.3f}"
                for values in (
                    [outcome.swing for outcome in of_seeds],
                    [outcome.coverage.distance for outcome in of_seeds],
                    [outcome.coverage.total_variation for outcome in of_seeds],
                    [outcome.coverage.near for outcome in of_seeds],
                    [outcome.map_distance for outcome in of_seeds],
                )
            ),
        )
        for name, of_seeds in outcomes.items()
    ]
    print_table(
        f"Students of one ring: {size.steps} updates each, {size.seeds} seeds, {SAMPLES} samples",
        ("run", "modes", "swing", "distance", "total variation", "near", "map distance"),
        rows,
    )


if __name__ == "__main__":
    main()
