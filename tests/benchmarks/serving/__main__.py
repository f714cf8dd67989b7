"""Measures serving: batches that mix concepts, what others do instead, and what the service adds to the engine.

Every figure is a ratio of two things measured in turns in this run, or stands beside its baseline; one engine thread on
both sides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.benchmarks.report import Report, argument_parser
from tests.benchmarks.serving.memory import measure_memory
from tests.benchmarks.serving.mixed import measure_mixed
from tests.benchmarks.serving.service import measure_service
from tests.benchmarks.serving.setup import QUICK, Size
from workers.engine.quiet import silence_loading

MODELS = Path(__file__).parents[3] / "models"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("serving", __doc__)
    given = parser.parse_args(arguments)
    silence_loading()
    torch.set_num_threads(1)
    size = QUICK if given.quick else Size()
    teacher, student = MODELS / "storybook", MODELS / "storybook-student"
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        measure_mixed(report, student, Path(scratch) / "mixed", size)
        measure_service(report, teacher, student, size)
        measure_memory(report, student, Path(scratch) / "memory", size)
    report.finish(given.json)


if __name__ == "__main__":
    main()
