"""Perfusion training: from a few pictures to a concept, for one customer or for several at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.errors import CheckpointMismatch, Interrupted, PermanentError
from workers.engine.perfusion.checkpoint import Checkpoint
from workers.engine.perfusion.cohort import step_together
from workers.engine.perfusion.concept import Concept, ConceptFile, KeyLock
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOrder:
    """Learn ``superclass``'s particular member from pictures.

    ``on_progress`` gets step, steps and smoothed loss after every step; ``on_checkpoint`` gets step and file every
    ``config.checkpoint_every`` steps, in the folder ``checkpoints``. When ``should_stop`` says so between two steps,
    a checkpoint is written and the training ends. ``masks`` (n, 1, H, W) replace the model's own, ``start`` the
    superclass as what the concept is at first.
    """

    pictures: Sequence[Image.Image]
    superclass: str
    config: PerfusionConfig
    seed: int
    checkpoints: Path
    on_progress: Callable[[int, int, float], None] = lambda _step, _steps, _loss: None
    on_checkpoint: Callable[[int, Path], None] = lambda _step, _path: None
    should_stop: Callable[[], bool] = lambda: False
    masks: Tensor | None = None
    resume_from: Path | None = None
    start: Concept | None = None


Outcome = ConceptFile | PermanentError | Interrupted


def train_concept(base: BaseModel, order: TrainingOrder) -> ConceptFile:
    """Carry out one order; raises TrainingDiverged, PicturesInvalid, SuperclassInvalid or Interrupted."""
    ((_, outcome),) = train_cohort(base, [order])
    if not isinstance(outcome, ConceptFile):
        raise outcome
    return outcome


def train_cohort(base: BaseModel, orders: Sequence[TrainingOrder]) -> Iterator[tuple[int, Outcome]]:
    """Carry out orders side by side; yield each one's place and outcome as soon as it ends.

    Raises CovarianceMissing, which is the model's fault and so everybody's.
    """
    covariance = base.covariance_sha256
    running: dict[int, ConceptTrainer] = {}
    for place, order in enumerate(orders):
        try:
            running[place] = _open(base, order)
        except PermanentError as error:
            yield place, error
    while running:
        ended: dict[int, Outcome] = {}
        for place, trainer in running.items():
            order = orders[place]
            if trainer.step_count >= order.config.steps:
                ended[place] = _concept_file(base, trainer, covariance)
            elif order.should_stop():
                ended[place] = Interrupted(trainer.step_count, _write_checkpoint(trainer, order))
        going_on = {place: trainer for place, trainer in running.items() if place not in ended}
        yield from ended.items()
        errors = _step(going_on, orders)
        yield from errors.items()
        running = {place: trainer for place, trainer in going_on.items() if place not in errors}


def _open(base: BaseModel, order: TrainingOrder) -> ConceptTrainer:
    """Begin, or go on from the order's checkpoint; one that does not fit (of another release) means starting over."""
    prepared = prepare_pictures(
        base, order.pictures, order.superclass, order.config, seed=order.seed, masks=order.masks
    )
    trainer = ConceptTrainer(base, prepared, order.superclass, order.config, seed=order.seed, start=order.start)
    if order.resume_from is not None:
        try:
            trainer.restore(Checkpoint.load(order.resume_from))
        except CheckpointMismatch as mismatch:
            _log.warning("not resumed: %s", mismatch)
    return trainer


def _step(running: dict[int, ConceptTrainer], orders: Sequence[TrainingOrder]) -> dict[int, PermanentError]:
    """Take one step of every training that runs, tell of it, and return the errors by place."""
    if not running:
        return {}
    errors: dict[int, PermanentError] = {}
    for (place, trainer), error in zip(running.items(), step_together(list(running.values())), strict=True):
        order = orders[place]
        if error is not None:
            errors[place] = error
            continue
        order.on_progress(trainer.step_count, order.config.steps, trainer.loss)
        if trainer.step_count % order.config.checkpoint_every == 0 and trainer.step_count < order.config.steps:
            order.on_checkpoint(trainer.step_count, _write_checkpoint(trainer, order))
    return errors


def _write_checkpoint(trainer: ConceptTrainer, order: TrainingOrder) -> Path:
    path = order.checkpoints / f"checkpoint-{trainer.step_count:06d}.safetensors"
    trainer.checkpoint().save(path)
    return path


def _concept_file(base: BaseModel, trainer: ConceptTrainer, covariance: str) -> ConceptFile:
    return ConceptFile(
        concept=trainer.concept,
        base_model=base.name,
        encoder_fingerprint=base.fingerprint,
        covariance_sha256=covariance,
        layer_widths=base.projections.widths,
        key_lock=KeyLock(trainer.config.key_lock),
        steps=trainer.step_count,
        settings=asdict(trainer.config),
        scores={"loss": round(trainer.loss, 6)},
    )
