"""A distillation as one order: everything it needs by name, carried out in this process or in several.

    carry_out          by the model that is at hand, or by as many processes as there are to be
    carry_out_share    the part of one process: rank.py calls it in each of several

What several processes report travels as the messages below, over a group's socket (group.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from workers.engine.base_model import BaseModel
from workers.engine.dmd.distillation import Distillation, distill
from workers.engine.dmd.group import Group
from workers.engine.dmd.processes import ALONE, Processes, require_equal_shares
from workers.engine.dmd.student_file import save_student
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.dmd.teacher_pairs import TeacherPairs
from workers.engine.errors import EngineError, Interrupted

_RANK = "workers.engine.dmd.rank"
_POLL_SECONDS = 0.2  # how long a stop may go unseen


@dataclass(frozen=True)
class DistillationOrder:
    """What to distil; ``settings`` override the model's distillation settings."""

    model: str  # folder or hub id
    prompts: tuple[str, ...]
    settings: Mapping[str, object]
    pairs: Path | None  # a folder with a plan and all of its shards
    seed: int
    resume_from: Path | None  # a checkpoint of the same distillation
    folder: Path  # gets checkpoints, previews and the student


@dataclass(frozen=True)
class FinishedStudent:
    """The student's file is written."""

    path: Path
    facts: StudentFacts
    signals: Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """What each of several processes is told."""

    order: DistillationOrder
    device: str  # its type
    dtype: torch.dtype  # of the teacher


@dataclass(frozen=True)
class Progress:
    """Some more steps are done."""

    step: int
    steps: int
    signals: Mapping[str, float]


@dataclass(frozen=True)
class Preview:
    """A preview is written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint is written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Stopped:
    """All processes stopped after ``step`` steps."""

    step: int
    checkpoint: Path | None


@dataclass(frozen=True)
class Failed:
    """One process failed, and with it all."""

    error: EngineError


def carry_out(
    order: DistillationOrder,
    base: BaseModel,
    *,
    processes: int,
    on_progress: Callable[[int, int, Mapping[str, float]], None],
    on_preview: Callable[[int, Path], None],
    on_checkpoint: Callable[[int, Path], None],
    should_stop: Callable[[], bool],
) -> FinishedStudent:
    """Distil a student of ``base``, which is ``order.model``; callbacks and errors are those of `distillation.distill`.

    Several processes load the model once each, on GPUs one to each from the first on; ``processes`` must divide the
    batch size. Raises ProcessesLost if one of them dies, and ends them all on any way out.
    """
    require_equal_shares(base.distillation.override(order.settings).batch_size, processes)
    if processes == 1:
        return carry_out_share(
            order,
            base,
            ALONE,
            on_progress=on_progress,
            on_preview=on_preview,
            on_checkpoint=on_checkpoint,
            should_stop=should_stop,
        )
    task = Task(order, base.device.type, base.denoiser.dtype)
    with Group(_RANK, task, processes=processes, folder=order.folder) as group:
        while not isinstance(message := group.receive(_POLL_SECONDS), Stopped | FinishedStudent):
            match message:
                case Progress(step, steps, signals):
                    on_progress(step, steps, signals)
                case Preview(step, path):
                    on_preview(step, path)
                case Checkpoint(step, path):
                    on_checkpoint(step, path)
                case Failed(error):
                    raise error
            if should_stop():
                group.stop()
    if isinstance(message, Stopped):
        raise Interrupted(message.step, message.checkpoint)
    return message


def carry_out_share(
    order: DistillationOrder,
    base: BaseModel,
    processes: Processes,
    *,
    on_progress: Callable[[int, int, Mapping[str, float]], None],
    on_preview: Callable[[int, Path], None],
    on_checkpoint: Callable[[int, Path], None],
    should_stop: Callable[[], bool],
) -> FinishedStudent:
    """Do one process's part of a distillation. The first process's callbacks hear of files, and it alone writes any."""
    work = Distillation(
        base,
        order.prompts,
        base.distillation.override(order.settings),
        seed=order.seed,
        pairs=None if order.pairs is None else TeacherPairs.load(base, order.pairs),
        processes=processes,
    )
    student = distill(
        work,
        order.folder,
        resume_from=order.resume_from,
        on_progress=on_progress,
        on_preview=on_preview,
        on_checkpoint=on_checkpoint,
        should_stop=should_stop,
    )
    path = order.folder / "student.safetensors"
    if processes.rank == 0:
        save_student(path, student.unet, student.facts, base)
    return FinishedStudent(path, student.facts, student.signals)
