"""Draws prompts with the bundled model, the way the product draws them: through the engine.

Every picture has a seed of its own, so a set of them is the same however it is cut into batches and processes (up to
the rounding of sums).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from workers.engine.base_model import BaseModel
from workers.engine.generation import GenerationRequest, generate
from workers.engine.quiet import silence_loading
from workers.engine.storybook.judges import Pictures

_BATCH: Final = 16


@dataclass(frozen=True)
class Drawing:
    """How to draw: picture k of a set has the seed `first_seed + k`."""

    steps: int
    guidance: float
    first_seed: int = 0


def load_model(folder: Path) -> BaseModel:
    """Open a model folder for drawing, in fp32 on the CPU."""
    return BaseModel.load(folder, device=torch.device("cpu"), dtype=torch.float32)


def draw(base: BaseModel, prompts: Sequence[str], how: Drawing) -> Pictures:
    """Draw one picture per prompt: (N, side, side, 3); raises the EngineError of a prompt that can't be drawn."""
    return _draw(base, list(enumerate(prompts)), how)


def draw_in_processes(folder: Path, prompts: Sequence[str], how: Drawing, *, processes: int) -> Pictures:
    """Draw the same pictures as `draw`, by processes of one thread each."""
    numbered = list(enumerate(prompts))
    processes = min(processes, len(prompts))
    shares = [numbered[rank::processes] for rank in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        drawn = list(pool.map(_draw_alone, repeat(folder), shares, repeat(how)))
    return np.stack([drawn[number % processes][number // processes] for number, _ in numbered])


def draw_requests(base: BaseModel, requests: Sequence[GenerationRequest]) -> Pictures:
    """Draw one picture for each request: (N, side, side, 3); raises the EngineError of one that can't be drawn."""
    answers = generate(
        base, requests, batch_size=_BATCH, on_progress=lambda _done, _due: None, should_stop=lambda: False
    )
    pictures = []
    for answer in answers:
        if not isinstance(answer, Image.Image):
            raise answer
        pictures.append(np.asarray(answer))
    return np.stack(pictures)


def _draw_alone(folder: Path, numbered: Sequence[tuple[int, str]], how: Drawing) -> Pictures:
    torch.set_num_threads(1)
    silence_loading()
    return _draw(load_model(folder), numbered, how)


def _draw(base: BaseModel, numbered: Sequence[tuple[int, str]], how: Drawing) -> Pictures:
    side = base.native_size
    requests = [
        GenerationRequest(prompt, how.first_seed + number, how.steps, how.guidance, side, side)
        for number, prompt in numbered
    ]
    return draw_requests(base, requests)
