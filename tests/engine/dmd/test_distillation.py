"""A distillation of the miniature pipeline, from pairs to a student's folder, broken off and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engine.conftest import load
from tests.engine.dmd.pairs import draw_some_pairs
from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.distillation import Distillation, RealPictures, Student, distill
from workers.engine.dmd.networks import weights_digest
from workers.engine.dmd.student_model import export_student
from workers.engine.dmd.teacher_pairs import TeacherPairs
from workers.engine.errors import CheckpointMismatch, Interrupted, PlaceholderUnknown, SettingsInvalid, TrainingDiverged
from workers.engine.generation import GenerationRequest, generate
from workers.engine.pictures import load_picture
from workers.engine.tensor_file import read_tensors

PROMPTS = ("a red cat", "the dog")
CONFIG = DistillationConfig(
    steps=4,
    batch_size=2,
    critic_ratio=1,
    lr=1e-3,
    critic_lr=1e-3,
    gan_weight=1e-3,
    report_every=2,
    preview_every=3,
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def pairs(tiny: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> TeacherPairs:
    folder = tmp_path_factory.mktemp("pairs")
    draw_some_pairs(tiny, PROMPTS, folder, count=4)
    return TeacherPairs.load(tiny, folder)


REAL = RealPictures(torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0)), ("a cat", "a dog", "a hat"))


class Events:
    """What a distillation reports; asks for a stop after ``stop_after`` steps that were reported."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.progress: list[tuple[int, int, Mapping[str, float]]] = []
        self.previews: list[tuple[int, Path]] = []
        self.checkpoints: list[tuple[int, Path]] = []
        self.stop_after = stop_after

    def distill(
        self,
        base: BaseModel,
        pairs: TeacherPairs,
        folder: Path,
        *,
        config: DistillationConfig = CONFIG,
        seed: int = 0,
        resume_from: Path | None = None,
    ) -> Student:
        return distill(
            Distillation(base, PROMPTS, config, seed=seed, pairs=pairs, real=REAL),
            folder,
            resume_from=resume_from,
            on_progress=lambda *progress: self.progress.append(progress),
            on_preview=lambda *preview: self.previews.append(preview),
            on_checkpoint=lambda *checkpoint: self.checkpoints.append(checkpoint),
            should_stop=lambda: bool(self.progress) and self.progress[-1][0] == self.stop_after,
        )


def test_it_reports_progress_previews_and_checkpoints_at_their_steps(
    tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path
) -> None:
    events = Events()
    student = events.distill(tiny, pairs, tmp_path)
    assert [(step, steps) for step, steps, _ in events.progress] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [bool(signals) for _, _, signals in events.progress] == [False, True, False, True]
    assert {"sample_mean", "sample_spread", "mean_swing", "fake_score_loss", "matching_gradient"} <= set(
        events.progress[1][2]
    )
    assert student.signals == events.progress[-1][2]
    assert [step for step, _ in events.previews] == [3, 4]
    assert load_picture(events.previews[0][1]).size == (64, 64)  # 4 x 4 pictures of 16 x 16
    assert [step for step, _ in events.checkpoints] == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000002.safetensors",
        "preview-000003.webp",
        "preview-000004.webp",
    ]


def test_a_distillation_resumed_from_its_checkpoint_ends_bit_for_bit_as_an_unbroken_one(
    tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path
) -> None:
    config = replace(CONFIG, report_every=3)  # so that a window of signals is open at the checkpoint
    whole, resumed = Events(), Events()
    expected = whole.distill(tiny, pairs, tmp_path, config=config)
    ended = resumed.distill(tiny, pairs, tmp_path, config=config, resume_from=whole.checkpoints[0][1])
    assert weights_digest(ended.unet) == weights_digest(expected.unet)
    assert resumed.progress == whole.progress[whole.checkpoints[0][0] :]


def test_a_stop_leaves_a_checkpoint_that_loses_no_step(tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path) -> None:
    expected = Events().distill(tiny, pairs, tmp_path)
    with pytest.raises(Interrupted) as stopped:
        Events(stop_after=2).distill(tiny, pairs, tmp_path)
    assert stopped.value.step == 2
    resumed = Events().distill(tiny, pairs, tmp_path, resume_from=stopped.value.checkpoint)
    assert weights_digest(resumed.unet) == weights_digest(expected.unet)


def test_compiled_networks_leave_no_trace_in_checkpoints_or_students(
    tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path
) -> None:
    plain, compiled = Events(), Events()
    expected = plain.distill(tiny, pairs, tmp_path)
    names = read_tensors(plain.checkpoints[0][1])[0].keys()
    with torch.compiler.set_stance("force_eager"):  # the wrappers without their minutes of work
        student = compiled.distill(tiny, pairs, tmp_path, config=replace(CONFIG, compiled=True))
    assert student.unet.state_dict().keys() == tiny.denoiser.unet.state_dict().keys()
    assert weights_digest(student.unet) == weights_digest(expected.unet)
    assert read_tensors(compiled.checkpoints[0][1])[0].keys() == names


def test_the_setting_compiles_what_is_trained(tiny: BaseModel, pairs: TeacherPairs) -> None:
    for compiled in (False, True):
        work = Distillation(tiny, PROMPTS, replace(CONFIG, compiled=compiled), seed=0, pairs=pairs, real=REAL)
        refused = pytest.raises(RuntimeError, match="recompile") if compiled else nullcontext()
        with torch.compiler.set_stance("fail_on_recompile"), refused:
            work.trainer.step()


def test_a_checkpoint_of_another_distillation_is_refused(tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path) -> None:
    path = Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=pairs, real=REAL).save_checkpoint(tmp_path)
    other_pictures = replace(REAL, latents=REAL.latents + 1)
    for other in (
        Distillation(tiny, PROMPTS, CONFIG, seed=1, pairs=pairs, real=REAL),
        Distillation(tiny, PROMPTS[:1], CONFIG, seed=0, pairs=pairs, real=REAL),
        Distillation(tiny, PROMPTS, replace(CONFIG, lr=1e-4), seed=0, pairs=pairs, real=REAL),
        Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=replace(pairs, digest="0"), real=REAL),
        Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=pairs, real=other_pictures),
    ):
        with pytest.raises(CheckpointMismatch, match="other inputs or settings"):
            other.restore_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointMismatch, match="not a checkpoint"):
        Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=pairs, real=REAL).restore_checkpoint(path)


def test_a_preview_shows_the_average_student_from_the_same_noise_every_time(
    tiny: BaseModel, pairs: TeacherPairs, tmp_path: Path
) -> None:
    work, path = Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=pairs, real=REAL), tmp_path / "preview.webp"

    def shown() -> bytes:
        work.save_preview(path)
        return path.read_bytes()

    first = shown()
    assert first == shown()
    work.trainer.step()
    assert first != shown()


def test_prompts_that_no_teacher_could_draw_are_refused(tiny: BaseModel, pairs: TeacherPairs) -> None:
    with pytest.raises(SettingsInvalid, match="at least one prompt"):
        Distillation(tiny, [], CONFIG, seed=0, pairs=pairs, real=REAL)
    with pytest.raises(PlaceholderUnknown):
        Distillation(tiny, ["a photo of <tom>"], CONFIG, seed=0, pairs=pairs, real=REAL)


def test_a_student_is_a_model_that_says_whose_it_is_and_keeps_its_teachers_locked_weights(
    tiny: BaseModel, tiny_folder: Path, pairs: TeacherPairs, tmp_path: Path
) -> None:
    student = Events().distill(tiny, pairs, tmp_path)
    folder = tmp_path / "student"
    export_student(
        student.unet, student.facts, name="tiny-in-one", teacher=tiny_folder, folder=folder, dtype=torch.float32
    )
    loaded = load(folder)
    assert loaded.name == "tiny-in-one"
    assert weights_digest(loaded.denoiser.unet) == weights_digest(student.unet) != weights_digest(tiny.denoiser.unet)
    assert torch.equal(loaded.projections.keys, tiny.projections.keys)
    assert torch.equal(loaded.projections.values, tiny.projections.values)
    assert (loaded.fingerprint, loaded.covariance_sha256) == (tiny.fingerprint, tiny.covariance_sha256)
    card = json.loads((folder / "lockstep.json").read_text())
    facts = {"teacher": "tiny", "timesteps": [999], "guidance": 3.0, "key_locked": True, "steps": 4}
    assert card["student"] == facts
    assert card["perfusion"] == json.loads((tiny_folder / "lockstep.json").read_text())["perfusion"]
    request = GenerationRequest("a red cat", seed=0, steps=1, guidance=1.0, width=16, height=16)
    (picture,) = generate(loaded, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False)
    assert isinstance(picture, Image.Image)


def test_weights_that_half_precision_cannot_hold_are_told(
    tiny: BaseModel, tiny_folder: Path, pairs: TeacherPairs, tmp_path: Path
) -> None:
    work = Distillation(tiny, PROMPTS, CONFIG, seed=0, pairs=pairs, real=REAL)
    student = work.student({})
    student.unet.conv_in.weight.data.mul_(1e9)
    with pytest.raises(TrainingDiverged, match="float16"):
        export_student(
            student.unet,
            student.facts,
            name="broken",
            teacher=tiny_folder,
            folder=tmp_path / "student",
            dtype=torch.float16,
        )
    assert not (tmp_path / "student").exists()
