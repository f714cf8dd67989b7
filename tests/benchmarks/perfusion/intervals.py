"""Means over individuals with what they may be off by: bootstrap intervals, of curves and of differences too.

Individuals are what is drawn again, never pictures: those of one individual stand or fall together.
Dimensions: I individuals, R resamples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_RESAMPLES: Final = 4000
_PERCENTILES: Final = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A mean over individuals and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def values(results: Sequence[Mapping[str, Any]], arm: str, score: str) -> Array:
    """Return a score of one arm, one for each individual (I,)."""
    return np.array([result["scores"][arm][score] for result in results], dtype=np.float64)


def mean_of(scores: Array) -> Estimate:
    """Estimate the mean of scores (I,)."""
    return _estimate(_means(scores))


def lift(curve: Sequence[tuple[Array, Array]], point: tuple[Array, Array]) -> Estimate:
    """Estimate how far a curve of (text, image) scores lies above a point: in image score, at the point's text score.

    Between its points the curve is straight, left of its first level. A point with more text than all of the curve is
    lifted over from 0: nothing is known of the curve there. All scores are (I,), of the same individuals.
    """
    text, image = (_means(scores) for scores in point)  # (1 + R,)
    xs, ys = (np.stack([_means(pair[axis]) for pair in curve], axis=1) for axis in (0, 1))  # (1 + R, points)
    order = xs.argsort(axis=1)
    xs, ys = np.take_along_axis(xs, order, 1), np.take_along_axis(ys, order, 1)
    here = [np.interp(at, across, up, right=0.0) for at, across, up in zip(text, xs, ys, strict=True)]
    return _estimate(np.array(here) - image)


def _means(scores: Array) -> Array:
    """Return the mean of scores (I,) and those of resamples, the same ones for as many individuals: (1 + R,)."""
    drawn = np.random.default_rng(0).integers(0, len(scores), (_RESAMPLES, len(scores)))
    return np.concatenate([[scores.mean()], scores[drawn].mean(1)])


def _estimate(means: Array) -> Estimate:
    low, high = np.percentile(means[1:], _PERCENTILES)
    return Estimate(float(means[0]), float(low), float(high))
