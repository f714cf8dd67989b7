"""Settings of a distillation."""

from __future__ import annotations

import pytest

from workers.engine.dmd.config import DistillationConfig, FakeSpace
from workers.engine.errors import SettingsInvalid
from workers.engine.schedule import Prediction


def test_settings_replace_defaults_one_by_one() -> None:
    config = DistillationConfig().override(
        {"steps": 300, "student_timesteps": [999, 499], "regression_weight": 0, "key_locked": False}
    )
    assert (config.steps, config.student_timesteps, config.key_locked) == (300, (999, 499), False)
    assert config.critic_ratio == DistillationConfig().critic_ratio


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1.0}, "unknown training setting 'learning_rate'"),
        ({"steps": 0}, "steps must be from 1"),
        ({"critic_ratio": 0}, "critic_ratio must be from 1 to 100"),
        ({"critic_warmup": 2000}, "critic_warmup must be from 0 to below the number"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"ema": 1.0}, "ema must be from 0 to below 1"),
        ({"clip": float("inf")}, "clip must be above 0 and finite"),
        ({"guidance": float("nan")}, "guidance must be from 0 to 50"),
        ({"matching_guidance": 1.5}, "matching_guidance must be from 0 to 1"),
        ({"least_noise": 0.99}, "must rise"),
        ({"fake_space": "flow"}, "fake_space must be one of own, epsilon"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"compiled": 1}, "compiled must be of type bool"),
        ({"student_timesteps": ["999"]}, "student_timesteps must be a list of whole numbers"),
        ({"student_timesteps": [True]}, "student_timesteps must be a list of whole numbers"),
        ({"student_timesteps": []}, "student_timesteps must fall"),
        ({"student_timesteps": [1000]}, "student_timesteps must fall"),
        ({"student_timesteps": [249, 999], "regression_weight": 0}, "student_timesteps must fall"),
        ({"student_timesteps": [999, 499]}, "regression_weight must be 0 for several steps"),
        ({"matching_weight": 0, "regression_weight": 0}, "must be above 0"),
        ({"match_pairs": True, "regression_weight": 0}, "match_pairs needs both"),
        ({"report_every": 0}, "report_every must be at least 1"),
    ],
)
def test_bad_settings_are_refused_with_the_bound(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        DistillationConfig().override(settings)


def test_the_digest_tells_settings_apart() -> None:
    assert DistillationConfig().digest == DistillationConfig().override({}).digest
    assert DistillationConfig().digest != DistillationConfig(key_locked=False).digest


def test_the_fake_scores_error_is_measured_in_what_it_predicts_unless_told_otherwise() -> None:
    assert FakeSpace.OWN.of(Prediction.V) is Prediction.V
    assert FakeSpace.EPSILON.of(Prediction.V) is Prediction.EPSILON


def test_plain_regression_needs_no_fake_score() -> None:
    assert not DistillationConfig(matching_weight=0).has_critic
    assert DistillationConfig().has_critic
