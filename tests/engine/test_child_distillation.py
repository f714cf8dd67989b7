"""Distillations by the GPU child: pairs, a student, and pictures by it, as a real process over a real pipe."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engine.child_process import PATIENCE, ChildProcess
from tests.engine.tiny import build_tiny_pipeline
from workers import protocol
from workers.engine.base_model import BaseModel
from workers.engine.dmd.student_file import load_student
from workers.engine.tensor_file import read_tensors
from workers.engine.work import _divisor

WANTED = protocol.PairsWanted(count=5, steps=2, shards=2, seed=100)
PROMPTS = ("a red cat", "the dog")
SETTINGS = {
    "steps": 4,
    "batch_size": 2,
    "critic_ratio": 1,
    "lr": 1e-3,
    "report_every": 1,
    "preview_every": 2,
    "checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def child() -> Iterator[ChildProcess]:
    """One child for the tests that leave it alive."""
    process = ChildProcess()
    yield process
    process.close()


def draw(folder: Path, scratch: Path, shard: int) -> protocol.DrawPairs:
    return protocol.DrawPairs("pairs", str(folder), PROMPTS, SETTINGS, WANTED, shard, str(scratch))


@pytest.fixture(scope="module")
def shards(child: ChildProcess, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Both shards of the pairs, each in a folder of its own, as jobs leave them."""
    paths = []
    for shard in range(2):
        child.send(draw(tiny_folder, tmp_path_factory.mktemp("shard"), shard))
        paths.append(child.receive(protocol.PairsDrawn).path)
    return tuple(paths)


@pytest.fixture
def distill(tiny_folder: Path, shards: tuple[str, ...], tmp_path: Path) -> protocol.Distill:
    """A short distillation from the pairs."""
    return protocol.Distill(
        request_id="distill",
        model=str(tiny_folder),
        prompts=PROMPTS,
        settings=SETTINGS,
        seed=0,
        wanted=WANTED,
        pairs=shards,
        resume_from=None,
        scratch_dir=str(tmp_path),
    )


def failure(child: ChildProcess, work: protocol.Work) -> protocol.Failed:
    """What the child says of work that it cannot do."""
    child.send(work)
    while not isinstance(message := child.pipe.recv(), protocol.Failed):
        assert isinstance(message, protocol.Loading | protocol.Warm), message
    return message


def test_a_shard_is_drawn_with_progress_over_its_steps(child: ChildProcess, tiny_folder: Path, tmp_path: Path) -> None:
    child.send(draw(tiny_folder, tmp_path, 1))
    progress = child.receive(protocol.Progress)
    assert (progress.step, progress.steps) == (1, WANTED.steps)  # three pairs are one batch
    drawn = child.receive(protocol.PairsDrawn)
    assert Path(drawn.path).name == "pairs-00001-of-00002.safetensors"
    assert Path(drawn.path).stat().st_size == drawn.size_bytes


def test_a_student_is_distilled_and_draws_beside_its_teacher(
    child: ChildProcess, distill: protocol.Distill, tiny: BaseModel, tmp_path: Path
) -> None:
    child.send(distill)
    assert child.receive(protocol.Progress).metrics.keys() >= {"sample_mean", "matching_gradient"}
    preview = child.receive(protocol.Preview)
    assert preview.step == 2
    with Image.open(preview.path) as sheet:
        assert (sheet.format, sheet.size) == ("WEBP", (64, 64))
    distilled = child.receive(protocol.Distilled)
    assert distilled.timesteps == (999,)
    assert distilled.size_bytes == Path(distilled.path).stat().st_size
    assert {"seconds", "sample_mean"} <= distilled.metrics.keys()
    student = load_student(Path(distilled.path), tiny)
    assert student.student is not None
    assert student.student.steps == 4

    item = protocol.GenerateItem("one", "a red cat", "", seed=1, steps=1, guidance=1.0, width=16, height=16)
    work = protocol.Generate("generate", distill.model, (item,), str(tmp_path), student=distilled.path)
    child.send(work)
    assert child.receive(protocol.Loading).model == distill.model  # the student was not warm
    assert child.receive(protocol.Generated).failures == ()
    child.send(work)
    assert child.pipe.poll(PATIENCE)
    assert isinstance(child.pipe.recv(), protocol.Progress)  # now it is
    child.receive(protocol.Generated)


def test_a_child_killed_in_mid_distillation_leaves_what_another_ends_the_same_way(
    child: ChildProcess, distill: protocol.Distill, tmp_path: Path
) -> None:
    child.send(distill)
    expected, _ = read_tensors(Path(child.receive(protocol.Distilled).path))

    (tmp_path / "broken").mkdir()
    victim = ChildProcess()
    victim.send(replace(distill, scratch_dir=str(tmp_path / "broken")))
    checkpoint = victim.receive(protocol.Checkpoint, until=lambda checkpoint: checkpoint.step == 2)
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.close()

    child.send(replace(distill, resume_from=checkpoint.path))
    assert child.receive(protocol.Progress).step == 3
    ended, _ = read_tensors(Path(child.receive(protocol.Distilled).path))
    assert ended.keys() == expected.keys()
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


def test_a_stopped_distillation_goes_on_from_its_checkpoint(child: ChildProcess, distill: protocol.Distill) -> None:
    long = replace(distill, settings=SETTINGS | {"steps": 5000, "checkpoint_every": 5000})
    child.send(long)
    child.receive(protocol.Progress, until=lambda progress: progress.step == 2)
    child.send(protocol.Stop("distill"))
    stopped = child.receive(protocol.Stopped)
    assert stopped.checkpoint_path is not None
    child.send(replace(long, resume_from=stopped.checkpoint_path))
    assert child.receive(protocol.Progress).step == stopped.step + 1
    child.send(protocol.Stop("distill"))
    child.receive(protocol.Stopped)


def test_a_distillation_starts_over_where_its_checkpoint_does_not_fit(
    child: ChildProcess, distill: protocol.Distill
) -> None:
    child.send(replace(distill, resume_from="/no/such/checkpoint"))
    assert child.receive(protocol.Progress).step == 1
    child.receive(protocol.Distilled)


def test_a_stopped_shard_leaves_nothing(child: ChildProcess, tiny_folder: Path, tmp_path: Path) -> None:
    child.send(replace(draw(tiny_folder, tmp_path, 0), wanted=replace(WANTED, steps=1000)))
    child.receive(protocol.Progress)
    child.send(protocol.Stop("pairs"))
    assert child.receive(protocol.Stopped).checkpoint_path is None
    assert list(tmp_path.iterdir()) == []


def test_a_student_of_several_steps_needs_no_pairs(child: ChildProcess, distill: protocol.Distill) -> None:
    several = {"student_timesteps": [999, 499], "regression_weight": 0.0, "steps": 1}
    child.send(replace(distill, wanted=None, pairs=(), settings=SETTINGS | several))
    assert child.receive(protocol.Distilled).timesteps == (999, 499)


def test_the_models_own_prompts_and_settings_are_used_where_none_are_given(
    child: ChildProcess, distill: protocol.Distill, tmp_path: Path
) -> None:
    folder = build_tiny_pipeline(tmp_path / "model")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    child.send(replace(draw(folder, tmp_path, 0), prompts=()))
    own = Path(child.receive(protocol.PairsDrawn).path)
    assert read_tensors(own)[1] == read_tensors(Path(distill.pairs[0]))[1]  # the plan's digest: it is the same


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompts": ()}, "settings-invalid"),  # and the model brings none
        ({"prompts": ("a photo of <tom>",)}, "teacher-pairs-invalid"),
        ({"pairs": ()}, "teacher-pairs-invalid"),
        ({"wanted": None, "pairs": ()}, "settings-invalid"),
        ({"wanted": replace(WANTED, seed=101)}, "teacher-pairs-invalid"),
        ({"settings": {**SETTINGS, "guidance": 4.0}}, "teacher-pairs-invalid"),
        ({"settings": {"speed": 3}}, "settings-invalid"),
        ({"model": "/no/such/folder"}, "model-unreadable"),
    ],
)
def test_a_distillation_that_cannot_be_done_fails_with_its_code(
    child: ChildProcess, distill: protocol.Distill, change: dict[str, object], code: str
) -> None:
    failed = failure(child, replace(distill, **change))  # type: ignore[arg-type]  # a table of fields
    assert (failed.code, failed.retryable) == (code, False)


def test_a_student_that_is_none_or_another_models_fails_with_its_code(
    child: ChildProcess, distill: protocol.Distill, tmp_path: Path
) -> None:
    child.send(distill)
    student = child.receive(protocol.Distilled).path
    other = build_tiny_pipeline(tmp_path / "other", seed=1)
    (tmp_path / "broken").write_bytes(b"broken")
    for model, path, code in (
        (str(other), student, "student-mismatch"),
        (distill.model, str(tmp_path / "broken"), "model-unreadable"),
    ):
        failed = failure(child, protocol.Generate("generate", model, (), str(tmp_path), student=path))
        assert (failed.code, failed.retryable) == (code, False)


@pytest.mark.parametrize(("batch_size", "most", "used"), [(32, 8, 8), (30, 8, 6), (7, 4, 1), (2, 8, 2), (32, 1, 1)])
def test_as_many_processes_share_a_batch_as_can_do_so_evenly(batch_size: int, most: int, used: int) -> None:
    assert _divisor(batch_size, most) == used
