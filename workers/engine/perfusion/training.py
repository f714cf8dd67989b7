"""Perfusion training: from a few pictures to a concept, for one customer or for several at once.

Where the model says how to validate, the concept of the best validated step is the result, and a training ends early
once validations have long brought nothing better; elsewhere it is the last step's. Where the model says so, a training
shows on the way what it has learned so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from workers.engine.perfusion.drawing import PreviewFacts
from workers.engine.perfusion.painter import Painter
from workers.engine.perfusion.preview import Preview
from workers.engine.perfusion.segmenter import Segmenter
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.perfusion.validation import Examiner, Validation

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOrder:
    """Learn ``superclass``'s particular member from pictures.

    ``on_progress`` gets step, steps and metrics (the smoothed loss, the latest validation's scores) after every step
    and every validation; ``on_checkpoint`` gets step and file every ``config.checkpoint_every`` steps, and
    ``on_preview`` those of pictures by what is learned so far, as often as the model says; files lie in the folder
    ``checkpoints``. When ``should_stop`` says so between two steps or while a validation draws, a checkpoint is written
    and the training ends. ``masks`` (n, 1, H, W) replace the model's, ``start`` the superclass as what the concept is
    at first.
    """

    pictures: Sequence[Image.Image]
    superclass: str
    config: PerfusionConfig
    seed: int
    checkpoints: Path
    on_progress: Callable[[int, int, Mapping[str, float]], None] = lambda _step, _steps, _metrics: None
    on_checkpoint: Callable[[int, Path], None] = lambda _step, _path: None
    on_preview: Callable[[int, Path], None] | None = None  # None: nothing is drawn
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

    Raises CovarianceMissing, or ModelUnreadable for what is to validate or to make masks with, which is the model's
    fault and so everybody's.
    """
    tools = _Tools.open(base, previews=any(order.on_preview is not None for order in orders))
    segmenter = None if base.segmenter is None else Segmenter.load(base.segmenter, device=base.device)
    running: dict[int, _Run] = {}
    for place, order in enumerate(orders):
        try:
            running[place] = _open(base, order, tools, segmenter)
        except PermanentError as error:
            yield place, error
    del segmenter  # its work is done, and the trainings need its memory
    while running:
        for place, run in list(running.items()):
            if (outcome := run.end()) is not None:
                del running[place]
                yield place, outcome
        errors = _step(running)
        yield from errors.items()
        for place in errors:
            del running[place]


@dataclass(frozen=True)
class _Tools:
    """What all trainings on a model share: its metric's hash, what grades concepts and what draws previews."""

    covariance: str
    examiner: Examiner | None
    painter: Painter | None

    @classmethod
    def open(cls, base: BaseModel, *, previews: bool) -> _Tools:
        """Raises what `train_cohort` raises; previews that cannot be drawn are none."""
        covariance = base.covariance_sha256
        examiner = None if base.validation is None else Examiner(base, base.validation)
        painter = None
        if base.preview is not None and previews:
            if examiner is not None and examiner.painter.drawing == base.preview.drawing:
                painter = examiner.painter  # one student is enough
            else:
                painter = _painter(base, base.preview)
        return cls(covariance, examiner, painter)


def _painter(base: BaseModel, preview: PreviewFacts) -> Painter | None:
    try:
        return Painter.open(base, preview.drawing)
    except Exception as error:  # a training is worth as much without
        _log.warning("no previews: %r", error)
        return None


def _open(base: BaseModel, order: TrainingOrder, tools: _Tools, segmenter: Segmenter | None) -> _Run:
    """Begin, or go on from the order's checkpoint; one that does not fit (of another release) means starting over."""
    prepared = prepare_pictures(
        base,
        order.pictures,
        order.superclass,
        order.config,
        seed=order.seed,
        masks=order.masks,
        segmenter=segmenter,
    )
    trainer = ConceptTrainer(base, prepared, order.superclass, order.config, seed=order.seed, start=order.start)
    if order.resume_from is not None:
        try:
            trainer.restore(Checkpoint.load(order.resume_from))
        except CheckpointMismatch as mismatch:
            _log.warning("not resumed: %s", mismatch)
    validation = None
    if tools.examiner is not None:
        validation = Validation(
            tools.examiner,
            order.pictures,
            order.superclass,
            order.config,
            seed=order.seed,
            should_stop=order.should_stop,
        )
        validation.require(trainer.concept)
    preview = None
    if tools.painter is not None and base.preview is not None and order.on_preview is not None:
        preview = Preview(
            tools.painter,
            base.preview,
            order.config,
            seed=order.seed,
            should_stop=order.should_stop,
            folder=order.checkpoints,
            on_preview=order.on_preview,
        )
    return _Run(order, trainer, validation, preview, tools.covariance)


def _step(running: Mapping[int, _Run]) -> dict[int, PermanentError]:
    """Take one step of every training that runs, let each tell of it, and return the errors by place."""
    if not running:
        return {}
    errors = step_together([run.trainer for run in running.values()])
    for run, error in zip(running.values(), errors, strict=True):
        if error is None:
            run.tell()
    return {place: error for place, error in zip(running, errors, strict=True) if error is not None}


@dataclass(frozen=True)
class _Run:
    """One order under way."""

    order: TrainingOrder
    trainer: ConceptTrainer
    validation: Validation | None
    preview: Preview | None
    covariance: str

    def end(self) -> Outcome | None:
        """Validate the step just done where that is due, and return what the training came to if it ends here."""
        try:
            if self.validation is not None and self.trainer.awaits_validation:
                self.trainer.take(self.validation.scores(self.trainer.concept))
                self._report()
            if self.trainer.has_ended:
                return self._concept_file()
        except PermanentError as error:
            return error
        except Interrupted:  # in the middle of a validation, which the resumed training begins anew
            return self._interrupted()
        return self._interrupted() if self.order.should_stop() else None

    def tell(self) -> None:
        """Report the step just done; write a checkpoint and a preview where they are due."""
        trainer, config = self.trainer, self.order.config
        self._report()
        if trainer.step_count % config.checkpoint_every == 0 and trainer.step_count < config.steps:
            self.order.on_checkpoint(trainer.step_count, self._write_checkpoint())
        if self.preview is not None:
            self.preview.follow(trainer.concept, trainer.step_count)

    def _report(self) -> None:
        self.order.on_progress(self.trainer.step_count, self.order.config.steps, self.trainer.metrics)

    def _interrupted(self) -> Interrupted:
        return Interrupted(self.trainer.step_count, self._write_checkpoint())

    def _write_checkpoint(self) -> Path:
        path = self.order.checkpoints / f"checkpoint-{self.trainer.step_count:06d}.safetensors"
        self.trainer.checkpoint().save(path)
        return path

    def _concept_file(self) -> ConceptFile:
        trainer, base = self.trainer, self.trainer.base
        best, scores = trainer.snapshot(), {}
        if trainer.standing is not None:
            best, scores = trainer.standing.best, trainer.standing.best_scores.metrics()
        concept = Concept(superclass=trainer.concept.superclass, **best.concept).to(base.device)
        return ConceptFile(
            concept=concept,
            base_model=base.name,
            encoder_fingerprint=base.fingerprint,
            covariance_sha256=self.covariance,
            layer_widths=base.projections.widths,
            key_lock=KeyLock(trainer.config.key_lock),
            steps=best.step,
            settings=asdict(trainer.config),
            scores={"loss": round(best.loss, 6), **scores},
            gate_bias=None if self.validation is None else self.validation.recommended_bias(concept),
        )
