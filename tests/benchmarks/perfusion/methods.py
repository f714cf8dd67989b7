"""The methods that are compared, each with the eight settings that it may choose from.

Every method takes as many samples through the U-Net: the same steps, the same batch. Each grid is around the values
that its paper or its public code gives, brought to a network a hundredth of theirs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from core.catalog.facts import read_facts
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.rivals import RivalConfig, custom_diffusion, dreambooth_lora, textual_inversion
from tests.benchmarks.subjects import at_the_models_dial, learn_from
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.concept import KeyLock

Settings = Mapping[str, Any]
MODELS: Final = Path(__file__).parents[3] / "models"
TEACHER: Final = MODELS / "storybook"
FACTS: Final = read_facts(str(TEACHER))
NAME: Final = "it"


@dataclass(frozen=True)
class Method:
    """How to learn an individual from pictures with some settings, and which settings there are to choose from."""

    learn: Callable[[BaseModel, Sequence[Image.Image], str, Settings], Personalised]
    grid: tuple[Settings, ...]
    settled: Settings  # what a quick comparison takes, which does not search
    key_lock: KeyLock | None = None

    @property
    def is_perfusion(self) -> bool:
        """Whether it has a dial."""
        return self.key_lock is not None


def _grid(**choices: Sequence[Any]) -> tuple[Settings, ...]:
    return tuple(dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


def learn_by_perfusion(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, settings: Settings
) -> Personalised:
    """Train a concept as the model's own settings say, but for ``settings``."""
    file = learn_from(base, photos, superclass, base.perfusion.override(dict(settings)))
    use = at_the_models_dial(base, TEACHER, NAME, file)
    with tempfile.TemporaryDirectory() as folder:
        size = file.save(Path(folder) / "concept.safetensors")
    return Personalised(base, f"a <{NAME}>", size, (use,))


def without_training(
    base: BaseModel, _photos: Sequence[Image.Image], _superclass: str, settings: Settings
) -> Personalised:
    """Say all that words can say instead: ``settings["caption"]``."""
    return Personalised(base, str(settings["caption"]), 0)


def _by_rival(
    learn: Callable[..., Personalised],
    base: BaseModel,
    photos: Sequence[Image.Image],
    superclass: str,
    settings: Settings,
) -> Personalised:
    steps, batch = base.perfusion.steps, base.perfusion.batch_size
    config = RivalConfig(**({"steps": steps, "batch_size": batch} | dict(settings)))
    with torch.enable_grad():
        return learn(base, photos, superclass, config, seed=0)


def _perfusion(lock: KeyLock) -> Method:
    grid = _grid(value_lr=(0.03, 0.1), embedding_lr=(0.002, 0.006), gate_bias=(0.6, 0.75), key_lock=(lock.value,))
    return Method(learn_by_perfusion, grid, {"key_lock": lock.value}, lock)


METHODS: Final[dict[str, Method]] = {
    "Perfusion, local": _perfusion(KeyLock.LOCAL),
    "Perfusion, global": _perfusion(KeyLock.GLOBAL),
    "Perfusion, trained K": _perfusion(KeyLock.TRAINED),
    "textual inversion": Method(
        partial(_by_rival, textual_inversion),
        _grid(lr=(1e-3, 3e-3, 1e-2, 3e-2), decay_share=(0.0, 0.5)),
        {"lr": 1e-2, "decay_share": 0.5},
    ),
    "DreamBooth-LoRA": Method(
        partial(_by_rival, dreambooth_lora),
        _grid(lr=(5e-4, 1.5e-3), rank=(4, 16), prior=(False, True)),
        {"lr": 1.5e-3, "rank": 4, "prior": True},
    ),
    "Custom Diffusion": Method(
        partial(_by_rival, custom_diffusion),
        _grid(lr=(1e-4, 3e-4, 1e-3, 3e-3), prior=(False, True)),
        {"lr": 1e-3, "prior": True},
    ),
}
CAPTION: Final = "caption"
