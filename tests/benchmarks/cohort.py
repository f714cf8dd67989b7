"""Measures what trainings gain by running side by side, and that company changes nothing but the rounding.

The same concepts are learned twice, one after the other and all in one batch, step by step in turns, so that a machine
that slows down slows both. The baseline of every time is the time alone; that of every difference is how far the same
numbers moved in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.subjects import subjects
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.cohort import step_together
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.quiet import silence_loading

ROOT = Path(__file__).parents[2]
EQUAL = 0.01  # of the way that training went
FASTER = 1.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    concepts: int = 8
    steps: int = 100
    warmup: int = 2


QUICK = Size(concepts=2, steps=3, warmup=1)


@dataclass
class Seconds:
    """How long each step took, of all trainings together."""

    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("cohort", __doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "storybook")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    silence_loading()
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    base = BaseModel.load(given.model, device=torch.device(given.device), dtype=dtype)
    report = Report()
    measure(report, base, size)
    report.finish(given.json)


def measure(report: Report, base: BaseModel, size: Size) -> None:
    """Learn every concept both ways and compare."""
    alone, together = _trainers(base, size.concepts), _trainers(base, size.concepts)
    starts = [_learned(trainer) for trainer in alone]
    seconds = Seconds()
    for _ in range(size.steps):
        seconds.alone.append(_timed(lambda: [step_together([trainer]) for trainer in alone], base.device))
        seconds.together.append(_timed(lambda: step_together(together), base.device))
    _report_time(report, seconds, size)
    _report_differences(report, starts, alone, together)


def _trainers(base: BaseModel, count: int) -> list[ConceptTrainer]:
    trainers = []
    for number, subject in enumerate(subjects(count)):
        cls = subject.identity.cls
        pictures = prepare_pictures(base, subject.photos(), cls, base.perfusion, seed=number)
        trainers.append(ConceptTrainer(base, pictures, cls, base.perfusion, seed=number))
    return trainers


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _report_time(report: Report, seconds: Seconds, size: Size) -> None:
    alone, together = (median(times[size.warmup :]) for times in (seconds.alone, seconds.together))
    report.add("seconds a step of all trainings", together, baseline=alone)
    report.add("times faster than one after the other", alone / together)
    report.expect("times faster than one after the other", ">=", FASTER)
    print_table(
        f"One step of {size.concepts} trainings, median of {size.steps - size.warmup}",
        ("", "seconds"),
        [("one after the other", alone), ("side by side", together), ("times faster", alone / together)],
    )


def _report_differences(
    report: Report,
    starts: Sequence[dict[str, torch.Tensor]],
    alone: Sequence[ConceptTrainer],
    together: Sequence[ConceptTrainer],
) -> None:
    rows = []
    for name in starts[0]:
        ways, differences = [], []
        for start, one, other in zip(starts, alone, together, strict=True):
            way = float((_learned(one)[name] - start[name]).norm())
            ways.append(way)
            differences.append(float((_learned(one)[name] - _learned(other)[name]).norm()) / way)
        report.add(f"difference of {name}", max(differences), baseline=1.0)
        report.expect(f"difference of {name}", "<=", EQUAL)
        rows.append((name, median(ways), median(differences), max(differences)))
    print_table(
        f"Side by side against alone, after {alone[0].step_count} steps, as a share of the way that training went",
        ("learned", "way", "median difference", "largest"),
        rows,
    )


def _learned(trainer: ConceptTrainer) -> dict[str, torch.Tensor]:
    moving = ("value_outputs", "embedding", "target_input")
    tensors = trainer.concept.tensors()
    return {name: tensors[name].detach().clone() for name in moving}


if __name__ == "__main__":
    main()
