"""What the measurements of serving share: the model, its requests, concepts with files, and how two are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from PIL import Image

from tests.engine.concepts import concept_file, random_concept
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest, draw_in_batches
from workers.engine.warm import WarmModel

BATCH = 8
SCENES = ("in the snow", "on the beach", "in the city", "at night", "in the forest", "on the moon", "", "on a hill")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = 15  # of every comparison
    pictures: int = 2000  # through a cache that holds one model
    settled: int = 500  # after so many of them memory is looked at first
    concepts: int = 200
    single: int = 60  # requests to an idle service, one after another
    backlog: int = 640  # pictures that wait for a busy one
    turns: int = 3  # of backlogs and the engine alone


QUICK = Size(rounds=1, pictures=32, settled=16, concepts=8, single=3, backlog=16, turns=1)


def write_concepts(base: BaseModel, folder: Path, count: int) -> list[Path]:
    """Write so many concept files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"concept-{number:03d}.safetensors" for number in range(count)]
    for number, path in enumerate(paths):
        concept_file(base, random_concept(base, number)).save(path)
    return paths


def plain_requests(base: BaseModel) -> list[GenerationRequest]:
    """A batch of prompts without concepts, one step each."""
    side = base.native_size
    return [
        GenerationRequest(f"a cat {scene}".strip(), seed, steps=1, guidance=1.0, width=side, height=side)
        for seed, scene in enumerate(SCENES)
    ]


def with_concepts(
    model: WarmModel, requests: Sequence[GenerationRequest], paths: Sequence[Path]
) -> list[GenerationRequest]:
    """The same prompts, each with another concept, opened from its file unless the model has it open."""
    uses = [ConceptUse("it", model.concept(path), gate_bias=0.6, gate_temperature=0.15) for path in paths]
    return [
        replace(request, prompt=request.prompt.replace("cat", "<it>"), concepts=(use,))
        for request, use in zip(requests, uses, strict=True)
    ]


def draw(model: WarmModel, requests: Sequence[GenerationRequest]) -> list[Image.Image]:
    """Draw a batch; raises the EngineError of a request that cannot be drawn."""
    pictures: list[Image.Image] = []
    drawn = draw_in_batches(
        model, requests, batch_size=BATCH, on_progress=lambda _done, _due: None, should_stop=lambda: False
    )
    for answer in (answer for batch in drawn for answer in batch.values()):
        if not isinstance(answer, Image.Image):
            raise answer
        pictures.append(answer)
    return pictures


def seconds_in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median processor seconds of each, taken in turns after a warm-up of all."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            taken[name].append(time.process_time() - started)
    return {name: median(times) for name, times in taken.items()}
