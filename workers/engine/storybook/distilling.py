"""Distils the bundled model's student, a free one, and those that show what each part of the objective is for.

Under the folder of a `Workplace`, outside version control:

    pairs/           what all learn from (student_material.py)
    runs/NAME/       an unfinished student: its last checkpoint and preview, and its journal
    students/NAME/   a finished one as a model folder, with record.json: settings, samples, seconds, device, signals

Everything goes on where it was stopped. A student may start where another one ended: regression on the pairs alone
takes a seventh of a full step's time and brings students to their first pictures, as DMD2 does for one step of SDXL
(arXiv 2405.14867, section 5.3); matching then starts with the fake score's warm-up.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig, Precision
from workers.engine.dmd.distillation import Distillation, Student, distill
from workers.engine.dmd.student_model import export_student, link_to_teacher
from workers.engine.dmd.teacher_pairs import TeacherPairs
from workers.engine.errors import Interrupted
from workers.engine.quiet import silence_loading
from workers.engine.storybook.facts import DISTILLATION, GUIDANCE
from workers.engine.storybook.student_material import (
    Material,
    Workplace,
    draw_pairs,
    own_prompts,
    real_pictures,
    seconds_for_pairs,
    settle,
)

log = logging.getLogger(__name__)

_PROMPTS: Final = 4000
_PAIRS: Final = 6000
_SHARDS: Final = 32
_TEACHER_STEPS: Final = 25  # their latents are 0.05 from those of 50 steps, of a spread of 1.1, at half the time


@dataclass(frozen=True)
class Recipe:
    """How one student is distilled, and from whose weights: another student's, or its teacher's."""

    config: DistillationConfig
    after: str | None = None
    crowded: int = 1  # how many times as often as others a prompt of several things is matched


FULL: Final = DistillationConfig().override(DISTILLATION)
# At ten times this rate what the teacher knows is lost at once: nine thousand steps leave an error of 0.45, where 120
# at this one leave less. At four times it is lost slowly: gradients grow, and after 400 steps the error rises.
REGRESSION: Final = replace(
    FULL, steps=1500, lr=5e-5, critic_warmup=0, matching_weight=0.0, regression_weight=1.0, decay_share=0.5, ema=0.99
)
# From there, matching needs few updates, and slow ones: at five times this rate the fake score's gradients grow.
LONG: Final = replace(FULL, steps=300, lr=2e-5, critic_lr=4e-5, critic_ratio=3, decay_share=0.5, checkpoint_every=50)
# What each part is for shows from the teacher's own weights: from where regression has been all draw nearly alike.
_SHORT: Final = replace(FULL, steps=160, lr=5e-5, critic_lr=5e-5, critic_ratio=5, critic_warmup=30, ema=0.98)

STUDENT: Final = "student"
RECIPES: Final[dict[str, Recipe]] = {
    "regression": Recipe(REGRESSION),
    "regression-free": Recipe(replace(REGRESSION, key_locked=False)),
    # Alike but for the keys.
    STUDENT: Recipe(LONG, after="regression", crowded=3),
    "free": Recipe(replace(LONG, key_locked=False), after="regression-free", crowded=3),
    # From one start and by as many updates of the student, so that only the objective differs.
    "full": Recipe(_SHORT),
    "no-regression": Recipe(replace(_SHORT, regression_weight=0.0)),
    "no-matching": Recipe(replace(_SHORT, matching_weight=0.0)),
    "one-to-one": Recipe(replace(_SHORT, regression_weight=0.0, critic_ratio=1)),
    "full-one-to-one": Recipe(replace(_SHORT, critic_ratio=1)),
}
"""What the recipe makes, each after what it starts from."""


def toy(recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Return the same students after two steps each, to see that everything runs."""
    return {
        name: replace(
            recipe,
            config=replace(
                recipe.config,
                steps=2,
                batch_size=2,
                critic_ratio=min(recipe.config.critic_ratio, 2),
                critic_warmup=0,
                report_every=1,
                preview_every=2,
                checkpoint_every=1,
            ),
        )
        for name, recipe in recipes.items()
    }


def make_bundled_student(place: Workplace, out: Path, *, quick: bool, seed: int) -> None:
    """Make all that `RECIPES` holds, as far as the time allows, and copy the key-locked student to ``out``.

    It lies beside its teacher there, and so links to what they share: a repository holds it once.
    """
    material = Material(
        prompts=own_prompts(place.teacher, 8 if quick else _PROMPTS),
        pairs=4 if quick else _PAIRS,
        shards=2 if quick else _SHARDS,
        teacher_steps=2 if quick else _TEACHER_STEPS,
        guidance=GUIDANCE,
        seed=seed,
    )
    left = make_students(place, material, toy(RECIPES) if quick else RECIPES)
    if STUDENT not in left:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(place.student(STUDENT), out)
        link_to_teacher(out, place.teacher)
    log.info("unfinished: %s", ", ".join(left) or "none")


def make_students(place: Workplace, material: Material, recipes: Mapping[str, Recipe]) -> list[str]:
    """Draw pairs and distil students as far as the time allows; return the names of those that are not finished.

    Raises TeacherPairsInvalid or CheckpointMismatch if the work in progress belongs to another teacher or recipe.
    """
    silence_loading()
    try:
        draw_pairs(place, material)
        for wave in _waves(place, recipes):
            _distil_all(place, material, wave)
    except Interrupted:
        log.info("the time is up")
    return [name for name in recipes if not place.student(name).exists()]


def distil_student(place: Workplace, material: Material, name: str, recipe: Recipe) -> None:
    """Distil one student and write its folder; raises Interrupted, with a checkpoint left, when the time is up."""
    folder, journal = place.run(name), Journal.of(place.run(name))
    folder.mkdir(parents=True, exist_ok=True)
    work = begin(place, material, recipe)
    checkpoint = max(folder.glob("checkpoint-*.safetensors"), default=None)
    log.info("%s goes on from %s", name, "the start" if checkpoint is None else checkpoint.stem)
    try:
        student = distill(
            work,
            folder,
            resume_from=checkpoint,
            on_progress=lambda step, _steps, signals: journal.note(name, step, signals),
            on_preview=lambda _step, path: _keep_only(path),
            on_checkpoint=lambda _step, path: journal.save(path),
            should_stop=place.is_over,
        )
    except Interrupted as stopped:
        if stopped.checkpoint is not None:
            journal.save(stopped.checkpoint)
        raise
    pairs = {"pairs": material.pairs, "seconds for pairs": seconds_for_pairs(place)}
    _export(place, name, student, {"after": recipe.after, **pairs, **journal.record(work.config, place.device)})
    shutil.rmtree(folder)


def begin(place: Workplace, material: Material, recipe: Recipe) -> Distillation:
    """Set a distillation up on this device, at its start."""
    base, config = place.load(place.teacher), recipe.config
    if place.fast:
        config = replace(config, precision=Precision.BFLOAT16.value, compiled=True)
    work = Distillation(
        base,
        material.prompts + material.crowded * (recipe.crowded - 1),
        config,
        seed=material.seed,
        pairs=TeacherPairs.load(base, place.pairs) if config.regression_weight > 0 else None,
        real=real_pictures(base, material.renders) if config.gan_weight > 0 else None,
    )
    if recipe.after is not None:
        _start_from(work, place.load(place.student(recipe.after)))
    return work


@dataclass
class Journal:
    """How a run went: seconds by the clock over all its calls, and the signals of every report."""

    path: Path
    seconds: float = 0.0
    signals: list[dict[str, float]] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, folder: Path) -> Journal:
        """Take up a run's journal, or begin one."""
        path = folder / "journal.json"
        return cls(path, **json.loads(path.read_text())) if path.exists() else cls(path)

    def note(self, name: str, step: int, signals: Mapping[str, float]) -> None:
        """Note a report, and log it; between two of them there is nothing to note."""
        if not signals:
            return
        self.signals.append({"step": step, **{key: round(value, 6) for key, value in signals.items()}})
        log.info("%s %s", name, ", ".join(f"{key} {value:.4g}" for key, value in self.signals[-1].items()))

    def save(self, checkpoint: Path) -> None:
        """Write the journal as of this checkpoint, and remove earlier ones."""
        _keep_only(checkpoint)
        self.path.write_text(json.dumps({"seconds": self._elapsed(), "signals": self.signals}))

    def record(self, config: DistillationConfig, device: str) -> dict[str, Any]:
        """Return what is told of a finished run."""
        return {
            "settings": asdict(config),
            "samples": (config.steps - config.critic_warmup) * config.batch_size,
            "seconds": round(self._elapsed(), 1),
            "device": torch.cuda.get_device_name() if device == "cuda" else "one CPU thread",
            "signals": self.signals,
        }

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._since


def _waves(place: Workplace, recipes: Mapping[str, Recipe]) -> Iterator[dict[str, Recipe]]:
    """Yield students that are due in sets that can be distilled at once, none before what it starts from."""
    due = {name: recipe for name, recipe in recipes.items() if not place.student(name).exists()}
    while due:
        wave = {name: recipe for name, recipe in due.items() if recipe.after not in due}
        yield wave
        due = {name: recipe for name, recipe in due.items() if name not in wave}


def _distil_all(place: Workplace, material: Material, recipes: Mapping[str, Recipe]) -> None:
    if place.workers == 1:
        for name, recipe in recipes.items():
            distil_student(place, material, name, recipe)
        return
    with ProcessPoolExecutor(place.workers, mp_context=get_context("spawn"), initializer=settle) as pool:
        for run in [pool.submit(distil_student, place, material, name, recipe) for name, recipe in recipes.items()]:
            run.result()


def _start_from(work: Distillation, other: BaseModel) -> None:
    """Give the student and its average another student's weights; the fake score stays a copy of the teacher."""
    weights = other.denoiser.unet.state_dict()
    for network in (work.trainer.student, work.trainer.averaged):
        network.unet.load_state_dict(weights)


def _export(place: Workplace, name: str, student: Student, record: Mapping[str, object]) -> None:
    folder = place.student(name)
    draft = folder.with_name(f".{name}")
    shutil.rmtree(draft, ignore_errors=True)
    export_student(
        student.unet, student.facts, name=f"storybook-{name}", teacher=place.teacher, folder=draft, dtype=torch.float16
    )
    (draft / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    draft.rename(folder)


def _keep_only(path: Path) -> None:
    """Remove the earlier files of a numbered series."""
    series, _, _ = path.stem.rpartition("-")
    for other in path.parent.glob(f"{series}-*{path.suffix}"):
        if other != path:
            other.unlink()
