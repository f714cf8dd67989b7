"""What the GPU child can be asked to do: a method for each piece of work in `workers.protocol`.

Each returns its last word and raises what went wrong; what was heard and done on the way is told by ``say``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from PIL import Image

from workers import protocol
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.order import DistillationOrder, FinishedStudent, carry_out
from workers.engine.dmd.teacher_pairs import PairPlan, draw_shard
from workers.engine.errors import (
    CheckpointMismatch,
    EngineError,
    Interrupted,
    PermanentError,
    SettingsInvalid,
    TeacherPairsInvalid,
)
from workers.engine.generation import GenerationRequest, draw_in_batches
from workers.engine.model_cache import ModelCache
from workers.engine.perfusion.concept import ConceptFile, KeyLock
from workers.engine.perfusion.training import Outcome, TrainingOrder, train_cohort
from workers.engine.picture_files import write_picture
from workers.engine.pictures import load_picture
from workers.engine.safety import Guard
from workers.engine.stopwatch import Stopwatch
from workers.engine.warm import WarmModel

_log = logging.getLogger(__name__)

_MOST_SCRIBES = 8

_Kept = tuple[protocol.GenerateItem, "Future[protocol.GeneratedImage]"]


class Workbench:
    """The models at hand, and how one piece of work after another is done with them."""

    def __init__(
        self,
        models: ModelCache,
        guard: Guard,
        *,
        batch_size: int,
        distillation_processes: int,
        say: Callable[[protocol.ToParent], None],
        should_stop: Callable[[str], bool],
    ) -> None:
        self._models = models
        self._guard = guard
        self._batch_size = batch_size
        self._most_processes = distillation_processes
        self._say = say
        self._should_stop = should_stop
        # They write pictures while the next are drawn; for the last ones of a batch everybody waits.
        self._scribes = ThreadPoolExecutor(min(_MOST_SCRIBES, os.cpu_count() or 1), thread_name_prefix="scribe")

    def do(self, work: protocol.Work) -> protocol.LastWord:
        """Do one piece of work; raises EngineError, Interrupted and errors of the device."""
        match work:
            case protocol.Train():
                return self._train(work)
            case protocol.Generate():
                return self._generate(work)
            case protocol.DrawPairs():
                return self._draw_pairs(work)
            case protocol.Distill():
                return self._distill(work)

    def _train(self, work: protocol.Train) -> protocol.TrainingsEnded:
        started = time.monotonic()
        base = self._model(work).base
        opened: list[tuple[protocol.Training, TrainingOrder]] = []
        for training in work.trainings:
            try:
                opened.append((training, self._order(base, training)))
            except PermanentError as error:
                self._say(failed(training, error))
        for place, outcome in train_cohort(base, [order for _, order in opened]):
            self._say(_ended(opened[place][0], outcome, seconds=time.monotonic() - started))
        return protocol.TrainingsEnded(work.request_id)

    def _order(self, base: BaseModel, training: protocol.Training) -> TrainingOrder:
        """Open one training's files and settings; raises PermanentError."""
        name = training.request_id
        return TrainingOrder(
            pictures=[load_picture(Path(path)) for path in training.pictures],
            superclass=training.superclass,
            config=base.perfusion.override(training.settings),
            seed=training.seed,
            checkpoints=Path(training.scratch_dir),
            on_progress=partial(self._say_progress, name),
            on_checkpoint=partial(self._say_checkpoint, name),
            on_preview=partial(self._say_preview, name),
            should_stop=partial(self._should_stop, name),
            resume_from=None if training.resume_from is None else Path(training.resume_from),
            start=None if training.start is None else base.adopt(ConceptFile.load(Path(training.start))),
        )

    def _generate(self, work: protocol.Generate) -> protocol.Generated:
        watch = Stopwatch()
        with watch.time("load"):
            model = self._model(work, work.student)
        failures: list[protocol.ItemFailure] = []
        accepted: list[tuple[protocol.GenerateItem, GenerationRequest]] = []
        with watch.time("open"):
            for item in work.items:
                try:
                    if item.safety != "off":
                        self._guard.require()
                    accepted.append((item, _request(model, item)))
                except EngineError as error:
                    failures.append(_failure(item, error))
        kept = self._draw(work, model, accepted, failures, watch)
        outputs: list[protocol.GeneratedImage] = []
        with watch.time("encode"):  # what is left of it: most is done while the next pictures are drawn
            for item, image in kept:
                try:
                    outputs.append(image.result())
                except EngineError as error:
                    failures.append(_failure(item, error))
        return protocol.Generated(work.request_id, tuple(outputs), tuple(failures), watch.seconds, tuple(watch.parts))

    def _draw(
        self,
        work: protocol.Generate,
        model: WarmModel,
        accepted: Sequence[tuple[protocol.GenerateItem, GenerationRequest]],
        failures: list[protocol.ItemFailure],
        watch: Stopwatch,
    ) -> list[_Kept]:
        """Draw what was accepted and have pictures kept as they come; what cannot be drawn joins the ``failures``."""
        kept: list[_Kept] = []
        drawing = draw_in_batches(
            model,
            [request for _, request in accepted],
            batch_size=self._batch_size,
            on_progress=partial(self._say_progress, work.request_id),
            should_stop=partial(self._should_stop, work.request_id),
            watch=watch,
        )
        try:
            for number, answer in (numbered for drawn in drawing for numbered in sorted(drawn.items())):
                item = accepted[number][0]
                if isinstance(answer, EngineError):
                    failures.append(_failure(item, answer))
                    continue
                stem = Path(work.scratch_dir) / f"image-{number:04d}"
                kept.append((item, self._scribes.submit(self._keep, model.base, item, answer, stem)))
        except BaseException:  # nothing of this work may go on once it has ended
            for _, image in kept:
                image.cancel()
            wait([image for _, image in kept])
            raise
        return kept

    def _keep(
        self, base: BaseModel, item: protocol.GenerateItem, picture: Image.Image, stem: Path
    ) -> protocol.GeneratedImage:
        """Judge a picture where its tenant wants that, and write its file unless it is to be withheld."""
        verdict = None if item.safety == "off" else self._guard.judge(picture)
        path = None
        if verdict is None or not verdict.unsafe or item.safety != "block":
            path = str(write_picture(picture, stem, item.file, weights=lambda: base.weights))
        return protocol.GeneratedImage(item.item_id, path, picture.width, picture.height, item.seed, verdict)

    def _draw_pairs(self, work: protocol.DrawPairs) -> protocol.PairsDrawn:
        base = self._model(work).base
        plan = _plan(base, base.distillation.override(work.settings), _prompts(base, work.prompts), work.wanted)
        path = draw_shard(
            base,
            plan,
            work.shard,
            Path(work.scratch_dir),
            batch_size=self._batch_size,
            on_progress=partial(self._say_progress, work.request_id),
            should_stop=partial(self._should_stop, work.request_id),
        )
        return protocol.PairsDrawn(work.request_id, str(path), path.stat().st_size)

    def _distill(self, work: protocol.Distill) -> protocol.Distilled:
        started = time.monotonic()
        base = self._model(work).base
        config, prompts = base.distillation.override(work.settings), _prompts(base, work.prompts)
        pairs = None
        if work.wanted is not None:
            plan = _plan(base, config, prompts, work.wanted)
            pairs = _lay_out(plan, work.pairs, Path(work.scratch_dir) / "plan")

        def distil(checkpoint: Path | None) -> FinishedStudent:
            order = DistillationOrder(
                model=work.model,
                prompts=prompts,
                settings=work.settings,
                pairs=pairs,
                seed=work.seed,
                resume_from=checkpoint,
                folder=Path(work.scratch_dir),
            )
            return carry_out(
                order,
                base,
                processes=_divisor(config.batch_size, self._most_processes),
                on_progress=partial(self._say_progress, work.request_id),
                on_preview=partial(self._say_preview, work.request_id),
                on_checkpoint=partial(self._say_checkpoint, work.request_id),
                should_stop=partial(self._should_stop, work.request_id),
            )

        try:
            student = distil(None if work.resume_from is None else Path(work.resume_from))
        except CheckpointMismatch as mismatch:
            _log.warning("not resumed: %s", mismatch)  # it is of another release: the work starts over
            student = distil(None)
        metrics = {**student.signals, "seconds": round(time.monotonic() - started, 3)}
        return protocol.Distilled(
            work.request_id, str(student.path), student.facts.timesteps, metrics, student.path.stat().st_size
        )

    def _model(self, work: protocol.Work, student: str | None = None) -> WarmModel:
        if (work.model, student) not in self._models:
            self._say(protocol.Loading(work.request_id, work.model))
        return self._models.get(work.model, student)

    def _say_progress(self, request_id: str, step: int, steps: int, metrics: Mapping[str, float] | None = None) -> None:
        self._say(protocol.Progress(request_id, step, steps, dict(metrics or {})))

    def _say_preview(self, request_id: str, step: int, path: Path) -> None:
        self._say(protocol.Preview(request_id, step, str(path)))

    def _say_checkpoint(self, request_id: str, step: int, path: Path) -> None:
        self._say(protocol.Checkpoint(request_id, step, str(path)))


def _ended(training: protocol.Training, outcome: Outcome, *, seconds: float) -> protocol.ToParent:
    """Write the concept, where there is one, and put into words how the training ended."""
    if isinstance(outcome, Interrupted):
        return protocol.Stopped(training.request_id, outcome.step, str(outcome.checkpoint))
    try:
        if isinstance(outcome, PermanentError):
            raise outcome
        path = Path(training.scratch_dir) / "concept.safetensors"
        size = outcome.save(path)
    except PermanentError as error:
        return failed(training, error)
    metrics = {**outcome.scores, "steps": outcome.steps, "seconds": round(seconds, 3)}
    return protocol.Trained(training.request_id, str(path), metrics, size, outcome.gate_bias)


def failed(work: protocol.Work | protocol.Training, error: EngineError) -> protocol.Failed:
    """Put an error into words."""
    return protocol.Failed(work.request_id, error.code, str(error), error.retryable)


def _prompts(base: BaseModel, given: tuple[str, ...]) -> tuple[str, ...]:
    """What to distil with: what was given, or what the model brings; raises SettingsInvalid for neither."""
    prompts = given or base.prompts
    if not prompts:
        raise SettingsInvalid(f"model {base.name!r} brings no prompts, so a distillation needs some")
    return prompts


def _plan(
    base: BaseModel, config: DistillationConfig, prompts: Sequence[str], wanted: protocol.PairsWanted
) -> PairPlan:
    """The plan of a distillation's pairs, the same wherever it is made; raises SettingsInvalid."""
    return PairPlan.of(
        base,
        prompts,
        count=wanted.count,
        seed=wanted.seed,
        steps=wanted.steps,
        guidance=config.guidance,
        shards=wanted.shards,
    )


def _divisor(batch_size: int, most: int) -> int:
    """The largest number of processes that can share a batch evenly."""
    return max(count for count in range(1, most + 1) if batch_size % count == 0)


def _lay_out(plan: PairPlan, shards: Sequence[str], folder: Path) -> Path:
    """Make the folder that a plan and its shards are read from; raises TeacherPairsInvalid."""
    if len(shards) != plan.shards:
        raise TeacherPairsInvalid(f"{len(shards)} shards of pairs where {plan.shards} are due")
    folder.mkdir(exist_ok=True)
    plan.save(folder)
    for index, shard in enumerate(shards):
        place = plan.path(folder, index)
        place.unlink(missing_ok=True)
        place.symlink_to(Path(shard).absolute())
    return folder


def _request(model: WarmModel, item: protocol.GenerateItem) -> GenerationRequest:
    """Open an item's concept files; raises PermanentError."""
    return GenerationRequest(
        prompt=item.prompt,
        negative_prompt=item.negative_prompt,
        seed=item.seed,
        steps=item.steps,
        guidance=item.guidance,
        width=item.width,
        height=item.height,
        concepts=tuple(_concept_use(model, use) for use in item.concepts),
    )


def _concept_use(model: WarmModel, use: protocol.ConceptUse) -> ConceptUse:
    if use.key_lock not in set(KeyLock):
        raise SettingsInvalid(f"key lock {use.key_lock!r} is none of {', '.join(KeyLock)}")
    concept = model.concept(Path(use.path))
    return ConceptUse(use.name, concept, use.gate_bias, use.gate_temperature, KeyLock(use.key_lock))


def _failure(item: protocol.GenerateItem, error: EngineError) -> protocol.ItemFailure:
    return protocol.ItemFailure(item.item_id, error.code, str(error), error.retryable)
