"""What distribution matching does and what each of its parts is for, seen on the ring.

Bounds come from runs over five seeds (``python -m tests.benchmarks.dmd_ladder``), whose ranges stand beside them. All
students start from one network, fitted to the exact scores.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.engine.dmd.ladder import MATCHING, descend_without_fake_score, distil_ring
from tests.engine.dmd.mixture import SHAPE, Coverage, Ring, draw_teacher, nothing, ring_schedule, start

STEPS = 300
FIVE_TO_ONE = replace(MATCHING, steps=STEPS)
ONE_TO_ONE = replace(MATCHING, steps=STEPS, critic_ratio=1)


def noise(count: int = 4000) -> torch.Tensor:
    return torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(0))


def test_the_exact_denoiser_is_the_mean_of_what_may_have_been_noised() -> None:
    """Against the definition: weigh many real samples by how likely each is to have become x_t."""
    ring, t = Ring(ring_schedule()), torch.tensor([600])
    x_t = torch.tensor([0.9, 0.5]).view(1, *SHAPE)
    real, a = ring.sample(400_000, torch.Generator().manual_seed(0)), ring.schedule.alphas(t)
    likely = torch.softmax(-(x_t - a.sqrt() * real).square().sum(1).flatten() / (2 * (1 - a.flatten())), 0)
    expected = (likely[:, None] * real[:, :, 0, 0]).sum(0)
    torch.testing.assert_close(ring.predict_x0(x_t, t, nothing(len(x_t))).flatten(), expected, atol=0.01, rtol=0)


def test_the_teacher_covers_the_ring_in_fifty_steps_and_the_start_nothing_in_one() -> None:
    teacher = Coverage.of(draw_teacher(Ring(ring_schedule()), noise()))
    assert teacher.modes == 8
    assert teacher.near > 0.98
    assert teacher.distance < 0.1
    untrained = start()
    with torch.no_grad():
        x = untrained.predict_x0(noise(), torch.full((4000,), 999), nothing(4000))
    assert Coverage.of(x).modes == 0
    assert x.std((0, 2, 3)).max() < 0.1  # every noise gives the mean of all data


def test_five_updates_of_the_fake_score_to_one_hold_still_and_cover_every_mode() -> None:
    outcome = distil_ring(FIVE_TO_ONE, seed=0)
    assert outcome.coverage.modes == 8  # of every seed
    assert outcome.swing < 0.1  # 0.022 to 0.036
    assert outcome.coverage.distance < 0.2  # 0.116 to 0.120
    assert outcome.coverage.total_variation < 0.1  # 0.033 to 0.049


def test_one_update_to_one_swings_and_loses_modes() -> None:
    outcome = distil_ring(ONE_TO_ONE, seed=0)
    assert outcome.swing > 0.6  # 0.92 to 1.21
    assert outcome.coverage.distance > 0.5  # 0.75 to 1.07
    assert outcome.coverage.modes < 5  # 0 to 2


def test_regression_steadies_one_to_one_and_teaches_the_teachers_own_map() -> None:
    outcome = distil_ring(replace(ONE_TO_ONE, regression_weight=0.25), seed=0)
    assert outcome.swing < 0.6  # 0.33 to 0.47
    assert outcome.coverage.distance < 0.4  # 0.18 to 0.27
    assert outcome.coverage.modes > 4  # 6 to 8
    assert outcome.map_distance < 0.7  # 0.35 to 0.46; two points of the ring are 1.8 apart on average


def test_without_a_fake_score_everything_collapses_to_one_point() -> None:
    x = descend_without_fake_score(FIVE_TO_ONE, seed=0)
    assert x.std((0, 2, 3)).max() < 0.1  # 0.007 to 0.019, where the ring's is 1
    assert Coverage.of(x).modes == 0


def test_a_student_of_two_steps_covers_the_ring_by_the_loop_that_it_was_trained_in() -> None:
    outcome = distil_ring(replace(FIVE_TO_ONE, student_timesteps=(999, 499)), seed=0)
    assert outcome.coverage.modes > 5  # 7 to 8
    assert outcome.coverage.distance < 0.3  # 0.124 to 0.185
