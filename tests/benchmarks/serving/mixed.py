"""A batch of eight concepts beside the same batch without any, and the ways to do its work that others offer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmarks.report import Report, print_table
from tests.benchmarks.serving.rivals import LoraPipeline
from tests.benchmarks.serving.setup import (
    BATCH,
    Size,
    draw,
    plain_requests,
    seconds_in_turns,
    with_concepts,
    write_concepts,
)
from workers.engine.storybook.drawing import load_model
from workers.engine.warm import WarmModel

KEPT = 0.95  # of the throughput without concepts


def measure_mixed(report: Report, student: Path, folder: Path, size: Size) -> None:
    """Measure throughput with and without concepts, warm and cold, and against LoRA by PEFT."""
    base = load_model(student)
    paths = write_concepts(base, folder / "concepts", BATCH)
    plain = plain_requests(base)
    warm = WarmModel(base)
    mixed = with_concepts(warm, plain, paths)

    def cold_mixed() -> None:
        fresh = WarmModel(base)
        draw(fresh, with_concepts(fresh, plain, paths))

    works: dict[str, Callable[[], object]] = {
        "plain, warm": lambda: draw(warm, plain),
        "8 concepts, warm": lambda: draw(warm, mixed),
        "plain, cold": lambda: draw(WarmModel(base), plain),
        "8 concepts, cold": cold_mixed,
    }
    seconds = seconds_in_turns(works, size.rounds)
    for state in ("warm", "cold"):
        kept = seconds[f"plain, {state}"] / seconds[f"8 concepts, {state}"]
        report.add(f"throughput with concepts, {state}", kept, baseline=1.0)
        report.expect(f"throughput with concepts, {state}", ">=", KEPT)
    timed = _seconds_of_rivals(report, student, folder, size, cold_mixed)
    rows = [(name, 1000 * value, BATCH / value) for name, value in (seconds | timed).items()]
    print_table(
        f"{BATCH} pictures in one step each, one thread; medians of {size.rounds} rounds in turns",
        ("how", "milliseconds", "pictures a second"),
        rows,
    )


def _seconds_of_rivals(
    report: Report, student: Path, folder: Path, size: Size, ours: Callable[[], object]
) -> dict[str, float]:
    """Time each rival beside ``ours``, and report how many times slower it is."""
    pipeline = LoraPipeline.open(student, folder / "lora", BATCH)
    rivals: dict[str, Callable[[], object]] = {
        "LoRA loaded for each request": pipeline.draw_loading,
        "LoRA resident, switched for each request": pipeline.draw_switching,
        "LoRA by PEFT's per-sample adapters": pipeline.draw_together,
    }
    with torch.inference_mode():
        timed = seconds_in_turns({**rivals, "ours": ours}, max(1, size.rounds // 3))
    for name in rivals:
        report.add(f"times slower: {name}", timed[name] / timed["ours"], baseline=1.0)
    return {name: timed[name] for name in rivals}
