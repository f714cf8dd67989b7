"""Where a training stands by its validations: the best concept so far, and how long ago that was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Mean cosines in a CLIP pair's space: with the training pictures, and with what the prompts ask for."""

    clip_i: float
    clip_t: float

    @property
    def harmonic_mean(self) -> float:
        """High only where both are: a concept that repeats its pictures, or ignores them, scores low."""
        one, other = max(self.clip_i, 0.0), max(self.clip_t, 0.0)
        return 2 * one * other / (one + other) if one + other > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """Return all three by name."""
        figures = {"clip_i": self.clip_i, "clip_t": self.clip_t, "harmonic_mean": self.harmonic_mean}
        return {name: round(figure, 6) for name, figure in figures.items()}


@dataclass(frozen=True)
class Snapshot:
    """A concept's tensors as they were after a step, and the training's loss then."""

    step: int
    loss: float
    concept: Mapping[str, Tensor]


@dataclass(frozen=True)
class Standing:
    """The latest validation, the best one with what it saw, and how many in a row have brought nothing better."""

    step: int
    scores: Scores
    best: Snapshot
    best_scores: Scores
    misses: int

    @classmethod
    def after(cls, earlier: Standing | None, scores: Scores, snapshot: Snapshot) -> Standing:
        """Return where a training stands after one more validation."""
        if earlier is None or scores.harmonic_mean > earlier.best_scores.harmonic_mean:
            return cls(snapshot.step, scores, snapshot, scores, misses=0)
        return cls(snapshot.step, scores, earlier.best, earlier.best_scores, earlier.misses + 1)

    def dump(self) -> str:
        """Return everything but the tensors as JSON, every number exact."""
        best = {"step": self.best.step, "loss": self.best.loss, "scores": asdict(self.best_scores)}
        return json.dumps({"step": self.step, "scores": asdict(self.scores), "misses": self.misses, "best": best})

    @classmethod
    def parse(cls, dumped: str, concept: Mapping[str, Tensor]) -> Standing:
        """Read what `dump` wrote, beside the best concept's tensors; raises ValueError, KeyError or TypeError."""
        said = json.loads(dumped)
        best = said["best"]
        return cls(
            step=said["step"],
            scores=Scores(**said["scores"]),
            best=Snapshot(best["step"], best["loss"], concept),
            best_scores=Scores(**best["scores"]),
            misses=said["misses"],
        )
