"""Teacher pairs for tests that only need some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.engine.base_model import BaseModel
from workers.engine.dmd.teacher_pairs import PairPlan, draw_shard


def draw_some_pairs(base: BaseModel, prompts: Sequence[str], folder: Path, *, count: int, seed: int = 0) -> None:
    """Fill a folder with ``count`` pairs of two guided steps, in one shard."""
    plan = PairPlan.of(base, prompts, count=count, seed=seed, steps=2, guidance=3.0, shards=1)
    plan.save(folder)
    draw_shard(base, plan, 0, folder, batch_size=count, on_progress=lambda *_: None, should_stop=lambda: False)
