"""Whether memory stays where it is: many pictures with many concepts and three models, of which one fits at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.report import Report, print_table
from tests.benchmarks.serving.setup import BATCH, SCENES, Size, write_concepts
from workers.engine.storybook.drawing import load_model
from workers.gpu_child import GpuChild
from workers.protocol import ConceptUse, Failed, Generate, Generated, GenerateItem, LastWord

GROWN = 1.05
_MODELS = 3
_PATIENCE = 120.0  # seconds for any one message


def measure_memory(report: Report, student: Path, folder: Path, size: Size) -> None:
    """Draw through a real engine process, and compare its resident memory early and at the end."""
    models = [Path(shutil.copytree(student, folder / f"model-{number}")) for number in range(_MODELS)]
    concepts = write_concepts(load_model(student), folder / "concepts", size.concepts)
    engine = GpuChild(device="cpu", batch_size=BATCH, model_bytes=1)
    engine.ensure_running()
    early = 0
    try:
        for first in range(0, size.pictures, BATCH):
            number = first // BATCH
            _draw(engine, models[number % _MODELS], _items(concepts, first), folder)
            if first + BATCH <= size.settled:
                early = _resident(engine)
        late = _resident(engine)
    finally:
        engine.close()
    report.add("memory at the end over memory when settled", late / early, baseline=1.0)
    report.expect("memory at the end over memory when settled", "<=", GROWN)
    print_table(
        f"Resident memory of the engine: {size.concepts} concepts, {_MODELS} models, a cache that holds one",
        ("pictures", "MiB"),
        [(str(size.settled), early / 2**20), (str(size.pictures), late / 2**20)],
    )


def _items(concepts: Sequence[Path], first: int) -> tuple[GenerateItem, ...]:
    """A batch whose concepts, prompts and seeds are the next ones."""
    return tuple(
        GenerateItem(
            item_id=f"{seed}/0",
            prompt=f"a <it> {SCENES[seed % len(SCENES)]}".strip(),
            negative_prompt="",
            seed=seed,
            steps=1,
            guidance=1.0,
            width=64,
            height=64,
            concepts=(ConceptUse("it", str(concepts[seed % len(concepts)]), 0.6, 0.15, "local"),),
        )
        for seed in range(first, first + BATCH)
    )


def _draw(engine: GpuChild, model: Path, items: tuple[GenerateItem, ...], scratch: Path) -> None:
    engine.send(Generate("generate", str(model), items, str(scratch)))
    while not isinstance(message := engine.receive(_PATIENCE), LastWord):
        if message is None:
            raise RuntimeError("the engine is silent")
    if isinstance(message, Failed) or not isinstance(message, Generated) or message.failures:
        raise RuntimeError(f"not drawn: {message}")


def _resident(engine: GpuChild) -> int:
    """Return the engine's resident memory in bytes."""
    status = Path(f"/proc/{engine.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])
