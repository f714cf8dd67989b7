"""Training settings."""

from __future__ import annotations

import pytest

from workers.engine.errors import SettingsInvalid
from workers.engine.perfusion.config import PerfusionConfig


def test_settings_replace_defaults_one_by_one() -> None:
    config = PerfusionConfig().override({"steps": 100, "value_lr": 1, "templates": ["a {}"], "flip": False})
    assert (config.steps, config.value_lr, config.templates, config.flip) == (100, 1.0, ("a {}",), False)
    assert config.batch_size == PerfusionConfig().batch_size


def test_a_list_of_numbers_takes_whole_ones_too() -> None:
    assert PerfusionConfig().override({"gate_biases": [0, 0.5, 1]}).gate_biases == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1.0}, "unknown training setting 'learning_rate'"),
        ({"steps": "100"}, "steps must be of type int"),
        ({"steps": 100.0}, "steps must be of type int"),
        ({"steps": True}, "steps must be of type int"),
        ({"flip": 1}, "flip must be of type bool"),
        ({"templates": "a {}"}, "templates must be a list"),
        ({"templates": ["a cat"]}, "hold one {}"),
        ({"templates": []}, "hold one {}"),
        ({"steps": 0}, "from 1 to"),
        ({"batch_size": 65}, "from 1 to 64"),
        ({"value_lr": float("nan")}, "value_lr"),
        ({"gate_temperature": 0.0}, "gate_temperature"),
        ({"decay_share": 1.5}, "decay_share must be from 0 to 1"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"validate_every": 0}, "validate_every"),
        ({"patience": 0}, "patience"),
        ({"validation_prompts": ["a cat"]}, "validation_prompts must hold one {}"),
        ({"validation_prompts": ["a {}"] * 65}, "at most 64"),
        ({"gate_biases": ["0.5"]}, "gate_biases must be a list of numbers"),
        ({"gate_biases": [True]}, "gate_biases must be a list of numbers"),
        ({"gate_biases": [0.5, 1.5]}, "from 0 to 1"),
        ({"gate_biases": []}, "1 to 16"),
    ],
)
def test_bad_settings_are_refused_with_the_bound(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        PerfusionConfig().override(settings)


def test_the_digest_tells_settings_apart() -> None:
    assert PerfusionConfig().digest == PerfusionConfig().override({}).digest
    assert PerfusionConfig().digest != PerfusionConfig(flip=False).digest
