"""A distillation carried out in one process and in two: the same student, whatever happens on the way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.engine.dmd.pairs import draw_some_pairs
from tests.engine.dmd.test_processes import assert_close, distance
from tests.waiting import is_alive
from workers.engine.base_model import BaseModel
from workers.engine.dmd.order import DistillationOrder, FinishedStudent, carry_out
from workers.engine.dmd.student_file import load_student
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.errors import CheckpointMismatch, Interrupted, ProcessesLost, SettingsInvalid
from workers.engine.pictures import load_picture
from workers.engine.tensor_file import read_tensors

PROMPTS = ("a red cat", "the dog")
SETTINGS: Mapping[str, object] = {
    "steps": 8,
    "batch_size": 4,
    "critic_ratio": 1,
    "lr": 1e-3,
    "critic_lr": 1e-3,
    "report_every": 1,
    "preview_every": 100,
    "checkpoint_every": 1,
}


@dataclass
class Run:
    """One carrying out of an order, and what it reported."""

    order: DistillationOrder
    base: BaseModel
    processes: int
    steps: list[int] = field(default_factory=list)
    previews: list[Path] = field(default_factory=list)
    checkpoints: dict[int, Path] = field(default_factory=dict)

    def carry_out(
        self, *, stop_after: int | None = None, on_checkpoint: Callable[[int], None] = lambda _: None
    ) -> FinishedStudent:
        def keep(step: int, path: Path) -> None:
            self.checkpoints[step] = path
            on_checkpoint(step)

        self.order.folder.mkdir()
        return carry_out(
            self.order,
            self.base,
            processes=self.processes,
            on_progress=lambda step, _steps, _signals: self.steps.append(step),
            on_preview=lambda _, path: self.previews.append(path),
            on_checkpoint=keep,
            should_stop=lambda: stop_after in self.steps,
        )


@pytest.fixture(scope="module")
def order(tiny: BaseModel, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DistillationOrder:
    folder = tmp_path_factory.mktemp("order")
    pairs = folder / "pairs"
    pairs.mkdir()
    draw_some_pairs(tiny, PROMPTS, pairs, count=4)
    return DistillationOrder(
        str(tiny_folder), PROMPTS, SETTINGS, pairs, seed=0, resume_from=None, folder=folder / "alone"
    )


@pytest.fixture(scope="module")
def alone(order: DistillationOrder, tiny: BaseModel) -> tuple[Run, FinishedStudent]:
    """The whole of it in one process."""
    run = Run(order, tiny, 1)
    return run, run.carry_out()


@pytest.fixture(scope="module")
def together(alone: tuple[Run, FinishedStudent]) -> tuple[Run, FinishedStudent]:
    """The same in two processes, from the one process's first checkpoint on."""
    first, _ = alone
    folder = first.order.folder.with_name("together")
    run = Run(replace(first.order, resume_from=first.checkpoints[1], folder=folder), first.base, 2)
    return run, run.carry_out()


@pytest.fixture(scope="module")
def broken(alone: tuple[Run, FinishedStudent]) -> tuple[Run, ProcessesLost, list[psutil.Process]]:
    """The same, until one of its processes is killed; and which processes there were."""
    first, _ = alone
    running: list[psutil.Process] = []

    def kill(step: int) -> None:
        if step == 3:
            running.extend(family())
            running[-1].kill()

    run = Run(
        replace(first.order, resume_from=first.checkpoints[1], folder=first.order.folder.with_name("broken")),
        first.base,
        2,
    )
    # As the GPU child does, whose processes would inherit it.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(ProcessesLost) as lost:
        run.carry_out(on_checkpoint=kill)
    signal.signal(signal.SIGTERM, before)
    return run, lost.value, running


def family() -> list[psutil.Process]:
    """The launcher and the processes of this one's group."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += [child] if "workers.engine.dmd.rank" in child.cmdline() else []
    return found


def test_an_order_becomes_a_students_file(alone: tuple[Run, FinishedStudent], tiny: BaseModel) -> None:
    run, student = alone
    assert student.path == run.order.folder / "student.safetensors"
    assert student.facts == StudentFacts("tiny", timesteps=(999,), guidance=3.0, key_locked=True, steps=8)
    assert load_student(student.path, tiny).student == student.facts
    assert "matching_gradient" in student.signals
    assert run.steps == list(range(1, 9))


def test_two_processes_make_the_student_of_one_and_go_on_from_its_checkpoint(
    alone: tuple[Run, FinishedStudent], together: tuple[Run, FinishedStudent]
) -> None:
    (one, expected), (two, student) = alone, together
    assert two.steps == list(range(2, 9))
    assert list(two.checkpoints) == list(range(2, 8))
    # From equal states one step differs by rounding; what that grows into after six is still small.
    for step, within in ((2, 1e-4), (7, 1e-2)):
        assert_close(read_tensors(two.checkpoints[step])[0], read_tensors(one.checkpoints[step])[0], within=within)
    ours, theirs = (read_tensors(path)[0] for path in (student.path, expected.path))
    assert distance(ours, theirs, theirs) < 1e-3
    assert student.signals == pytest.approx(dict(expected.signals), rel=1e-2, abs=1e-4)
    assert (student.facts, load_picture(two.previews[0]).size) == (expected.facts, (64, 64))


def test_one_process_goes_on_from_the_checkpoint_of_two(together: tuple[Run, FinishedStudent]) -> None:
    two, _ = together
    run = Run(replace(two.order, resume_from=two.checkpoints[6], folder=two.order.folder / "back"), two.base, 1)
    run.carry_out()
    assert_close(read_tensors(run.checkpoints[7])[0], read_tensors(two.checkpoints[7])[0], within=1e-4)


def test_a_killed_process_ends_the_others(broken: tuple[Run, ProcessesLost, list[psutil.Process]]) -> None:
    _, lost, running = broken
    assert (lost.code, lost.retryable) == ("processes-lost", True)
    assert len(running) == 3
    assert not any(is_alive(process.pid) for process in running)


def test_a_broken_run_goes_on_bit_for_bit_where_it_left_off_and_stops_when_told(
    together: tuple[Run, FinishedStudent], broken: tuple[Run, ProcessesLost, list[psutil.Process]]
) -> None:
    (whole, _), (part, _, _) = together, broken
    again = replace(part.order, resume_from=part.checkpoints[3], folder=part.order.folder.with_name("again"))
    with pytest.raises(Interrupted) as stopped:
        Run(again, part.base, 2).carry_out(stop_after=4)
    assert 4 <= stopped.value.step < 8
    assert stopped.value.checkpoint is not None
    resumed = read_tensors(stopped.value.checkpoint)[0]
    unbroken = read_tensors(whole.checkpoints[stopped.value.step])[0]
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(tensor, unbroken[name]) for name, tensor in resumed.items())
    assert not family()


def test_what_goes_wrong_in_every_process_is_raised_once_as_what_it_is(
    order: DistillationOrder, tiny: BaseModel, alone: tuple[Run, FinishedStudent]
) -> None:
    other = replace(order, seed=1, resume_from=alone[0].checkpoints[1], folder=order.folder / "other")
    with pytest.raises(CheckpointMismatch, match="other inputs or settings"):
        Run(other, tiny, 2).carry_out()


def test_a_batch_that_does_not_divide_is_refused_before_any_process_starts(
    order: DistillationOrder, tiny: BaseModel
) -> None:
    with pytest.raises(SettingsInvalid, match="batch_size 4 must be divisible by the 3 processes"):
        Run(replace(order, folder=order.folder.with_name("odd")), tiny, 3).carry_out()
