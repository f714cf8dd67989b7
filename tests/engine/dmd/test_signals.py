"""What a window of steps is reported as."""

from __future__ import annotations

import pytest
import torch

from workers.engine.dmd.signals import SignalWindow


def flat(*means: float) -> torch.Tensor:
    """Two samples of one cell for each channel, half a unit to either side of its mean."""
    column = torch.tensor(means)[None, :, None, None]
    return torch.cat([column - 0.5, column + 0.5])


def test_a_value_is_averaged_over_the_steps_that_gave_it() -> None:
    window = SignalWindow()
    for value in (1.0, 2.0, 6.0):
        window.add("loss", value)
    window.add("now and then", 4.0)
    assert window.report() == {"loss": 3.0, "now and then": 4.0}


def test_a_mean_that_holds_still_does_not_swing_and_one_that_alternates_does() -> None:
    still, swinging = SignalWindow(), SignalWindow()
    for step in range(10):
        still.add_samples(flat(1.0, -1.0))
        side = 1 if step % 2 else -1
        swinging.add_samples(flat(1.0 + 0.3 * side, -1.0 - 0.3 * side))
    assert still.report() == pytest.approx({"sample_mean": 0.0, "mean_swing": 0.0, "sample_spread": 0.5})
    report = swinging.report()
    assert report["sample_mean"] == pytest.approx(0.0)
    assert report["mean_swing"] == pytest.approx(0.3)  # though the mean over all channels never moved


def test_a_restored_window_reports_what_the_whole_one_does() -> None:
    whole, restored = SignalWindow(), SignalWindow()
    whole.add("loss", 0.1)
    whole.add_samples(flat(0.3))
    restored.restore(whole.state())
    for window in (whole, restored):
        window.add("loss", 0.7)
        window.add_samples(flat(0.9))
    assert restored.report() == whole.report()
