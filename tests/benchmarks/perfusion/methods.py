"""The methods that are compared, each with the eight settings that it may choose from.

Every method trains on as many samples: the same steps, the same batch. Each grid is around the values that its paper or
its public code gives, brought to a network a hundredth of theirs. Perfusion's three key locks share what was chosen for
the local one, so that it is tried no more often than a rival. The rank of DreamBooth's updates is 4 throughout, as
diffusers' script has it: with as many trials, the choice of the rate and of the prior is worth more.
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
from tests.benchmarks.perfusion.fitting import Prior, RivalConfig, prior_pictures
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.prompts import called
from tests.benchmarks.perfusion.rivals import custom_diffusion, dreambooth_lora, textual_inversion
from tests.benchmarks.subjects import at_the_models_dial, learn_from
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.concept import ConceptFile, KeyLock, concept_size_bytes

Settings = Mapping[str, Any]
MODELS: Final = Path(__file__).parents[3] / "models"
TEACHER: Final = MODELS / "storybook"
FACTS: Final = read_facts(str(TEACHER))
NAME: Final = "it"


@dataclass(frozen=True)
class Method:
    """How to learn an individual from pictures with some settings, and which settings there are to choose from."""

    learn: Callable[[BaseModel, Sequence[Image.Image], str, Settings], Personalised]
    settled: Settings  # what a quick comparison takes, which does not search
    grid: tuple[Settings, ...] = ()  # none: what was chosen for `WHOLE`
    key_lock: KeyLock | None = None

    @property
    def is_perfusion(self) -> bool:
        """Whether it has a dial."""
        return self.key_lock is not None


def _grid(**choices: Sequence[Any]) -> tuple[Settings, ...]:
    return tuple(dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


def learn_by_perfusion(
    base: BaseModel,
    photos: Sequence[Image.Image],
    superclass: str,
    settings: Settings,
    *,
    lock: KeyLock = KeyLock.LOCAL,
) -> Personalised:
    """Train a concept as the model's own settings say, but for ``settings``; raises TrainingDiverged."""
    config = base.perfusion.override({"key_lock": lock.value, **settings})
    return with_concept(base, _as_kept(learn_from(base, photos, superclass, config)))


def with_concept(base: BaseModel, file: ConceptFile) -> Personalised:
    """Return a model, the teacher or a student, with a concept at the dial that the teacher's card recommends."""
    size = concept_size_bytes(file.layer_widths, base.text.width, file.key_lock)
    thing = called(f"<{NAME}>", file.concept.superclass)
    return Personalised(base, thing, size, (at_the_models_dial(base, TEACHER, NAME, file),), file)


def _as_kept(file: ConceptFile) -> ConceptFile:
    """Return what is left of a concept in half precision, so that teacher and students draw the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "concept.safetensors"
        file.save(path)
        return ConceptFile.load(path)


def without_training(base: BaseModel, caption: str) -> Personalised:
    """Say all that words can say instead."""
    return Personalised(base, caption, 0)


def prior_of(base: BaseModel, superclass: str, settings: Settings) -> Prior | None:
    """Return the base model's own pictures that a training with these settings learns from too, drawn by now."""
    return prior_pictures(base, superclass, _rival_config(base, settings)) if settings.get("prior") else None


def _rival_config(base: BaseModel, settings: Settings) -> RivalConfig:
    return RivalConfig(**({"steps": base.perfusion.steps, "batch_size": base.perfusion.batch_size} | dict(settings)))


def _by_rival(
    learn: Callable[..., Personalised],
    base: BaseModel,
    photos: Sequence[Image.Image],
    superclass: str,
    settings: Settings,
) -> Personalised:
    with torch.enable_grad():
        return learn(base, photos, superclass, _rival_config(base, settings), seed=0)


WHOLE: Final = "Perfusion, local"
"""Perfusion as the paper has it, which ablations take a part from."""
METHODS: Final[dict[str, Method]] = {
    WHOLE: Method(
        learn_by_perfusion,
        {},
        _grid(value_lr=(0.03, 0.1), embedding_lr=(0.002, 0.006), gate_bias=(0.6, 0.75)),
        KeyLock.LOCAL,
    ),
    "Perfusion, global": Method(partial(learn_by_perfusion, lock=KeyLock.GLOBAL), {}, key_lock=KeyLock.GLOBAL),
    "Perfusion, trained K": Method(partial(learn_by_perfusion, lock=KeyLock.TRAINED), {}, key_lock=KeyLock.TRAINED),
    "textual inversion": Method(
        partial(_by_rival, textual_inversion),
        {"lr": 1e-2, "decay_share": 0.5},
        _grid(lr=(1e-3, 3e-3, 1e-2, 3e-2), decay_share=(0.0, 0.5)),
    ),
    "DreamBooth-LoRA": Method(
        partial(_by_rival, dreambooth_lora),
        {"lr": 3e-3, "prior": True},
        _grid(lr=(3e-4, 1e-3, 3e-3, 1e-2), prior=(False, True)),
    ),
    "Custom Diffusion": Method(
        partial(_by_rival, custom_diffusion),
        {"lr": 1e-3, "prior": True},
        _grid(lr=(1e-4, 3e-4, 1e-3, 3e-3), prior=(False, True)),
    ),
}
CAPTION: Final = "caption"
