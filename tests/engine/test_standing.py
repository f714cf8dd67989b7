"""Scores, and which of several validated concepts is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from workers.engine.perfusion.standing import Scores, Snapshot, Standing


@pytest.mark.parametrize(
    ("clip_i", "clip_t", "mean"),
    [(0.5, 0.5, 0.5), (0.9, 0.1, 0.18), (1.0, 0.0, 0.0), (0.8, -0.2, 0.0), (-0.1, -0.1, 0.0)],
)
def test_the_score_is_the_harmonic_mean_in_which_negative_cosines_count_nothing(clip_i, clip_t, mean) -> None:
    assert Scores(clip_i, clip_t).harmonic_mean == pytest.approx(mean)


def after(means: Sequence[float]) -> Standing:
    """Where a training stands whose validations after steps 1, 2, ... came out like this."""
    standing: Standing | None = None
    for step, mean in enumerate(means, start=1):
        snapshot = Snapshot(step, loss=1 / step, concept={"embedding": torch.full((2,), mean)})
        standing = Standing.after(standing, Scores(mean, mean), snapshot)
    assert standing is not None
    return standing


@pytest.mark.parametrize(
    ("means", "best", "misses"),
    [
        ([0.2], 1, 0),
        ([0.2, 0.4], 2, 0),
        ([0.4, 0.2, 0.3], 1, 2),
        ([0.4, 0.4], 1, 1),  # as good is not better
        ([0.4, 0.2, 0.5, 0.1], 3, 1),
        ([0.0, 0.0], 1, 1),
    ],
)
def test_the_best_is_kept_and_what_is_no_better_counts_as_a_miss(means, best, misses) -> None:
    standing = after(means)
    assert (standing.step, standing.best.step, standing.misses) == (len(means), best, misses)
    assert standing.scores.clip_i == means[-1]
    assert standing.best_scores.clip_i == means[best - 1]
    assert torch.equal(standing.best.concept["embedding"], torch.full((2,), means[best - 1]))


def test_it_comes_back_from_its_dump_with_every_number_exact() -> None:
    standing = after([1 / 3, 0.1 + 0.2, 1 / 7])
    assert Standing.parse(standing.dump(), standing.best.concept) == standing


@pytest.mark.parametrize("dumped", ["{", "{}", "[]", '{"best": 3}'])
def test_a_damaged_dump_is_refused(dumped: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Standing.parse(dumped, {})
