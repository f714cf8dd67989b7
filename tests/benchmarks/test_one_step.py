"""The benchmark of one-step generation: its measures, and its form with a student that is its teacher in one step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.one_step import ROOT, main, measure
from tests.benchmarks.one_step_ablations import ABLATIONS, missing_folders, swing_of
from tests.benchmarks.one_step_quality import detail, mean_pairwise_distance
from tests.benchmarks.one_step_setup import QUICK, Models, drawing_of
from tests.benchmarks.report import Report
from tests.benchmarks.subjects import CANDIDATES, subjects
from workers.engine.dmd.student_model import StudentFacts, export_student
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import is_unseen

TEACHER = ROOT / "models" / "storybook"
SIZE = replace(QUICK, steps=1, concept_steps=1, prompts=6, ablated=2)


def export(folder: Path, *, shift: float = 0.0) -> None:
    """Write the teacher as its own student, with its keys and values shifted."""
    unet = load_model(TEACHER).denoiser.unet
    for name, parameter in unet.named_parameters():
        if ".attn2.to_k" in name:
            parameter.add_(shift)
    facts = StudentFacts("storybook", (999,), guidance=3.0, key_locked=not shift, steps=0)
    export_student(unet, facts, name="student", teacher=TEACHER, folder=folder, dtype=torch.float16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("students")
    export(root / "student")
    export(root / "free", shift=0.1)
    export(root / "full")
    signals = [{"step": step, "sample_mean": 0.1 * (step % 2)} for step in range(8)]
    (root / "full" / "record.json").write_text(json.dumps({"signals": signals, "seconds": 1.0}))
    return Models(TEACHER, root / "student", root)


@pytest.fixture(scope="module")
def report(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Report:
    sheet = tmp_path_factory.mktemp("sheet") / "sheet.png"
    measured = measure(
        models, ROOT / "models" / "storybook-judges", ROOT / "models" / "storybook-grader", SIZE, sheet=sheet
    )
    assert sheet.exists()
    return measured


def met(report: Report, figures: Sequence[str]) -> list[bool]:
    return [target.met for target in report.targets if target.figure in figures]


def test_every_promise_has_its_target(report: Report):
    aimed_at = {target.figure: (target.op, target.target) for target in report.targets}
    assert aimed_at["U-Net: times faster"] == (">=", 80)
    assert aimed_at["picture: times faster"] == (">=", 45)
    assert aimed_at["Frechet: student over teacher"] == aimed_at["CMMD: student over teacher"] == ("<=", 1.5)
    assert aimed_at["class: student over teacher"] == aimed_at["diversity: student over teacher"] == (">=", 0.9)
    assert "concept identity: student over teacher" in aimed_at


def test_figures_stand_beside_what_they_are_compared_with(report: Report):
    for name in ("teacher", "student", "free student"):
        assert f"concept identity: {name}" in report.baseline  # the same model's with the caption
        assert f"Frechet: {name}" in report.baseline  # renders among themselves
        assert f"class: {name}" in report.baseline  # other prompts' pictures
    assert report.figures["detail: teacher"] < report.baseline["detail: teacher"]


def test_locked_keys_are_told_from_free_ones(report: Report):
    assert report.figures["student has its teacher's keys and values"] == 1
    assert report.figures["free student has its teacher's keys and values"] == 0


def test_what_is_missing_is_said_and_missed(models: Models, report: Report):
    assert [folder.name for folder in missing_folders(models)] == list(ABLATIONS[1:])
    assert met(report, ["full is there"]) == [True]
    assert met(report, ["no-matching is there", "one-to-one is there"]) == [False, False]
    assert "Frechet: full" in report.figures
    assert "Frechet: no-matching over full" not in report.figures


def test_the_document_is_plain_json(report: Report):
    json.dumps(report.as_json(), allow_nan=False)


def test_without_a_student_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--student", str(tmp_path / "none")])
    assert "workers.engine.storybook student" in capsys.readouterr().err


def test_a_student_draws_in_its_own_steps_without_guidance(models: Models):
    assert (
        drawing_of(models.student, 50, first_seed=7).steps,
        drawing_of(models.student, 50, first_seed=7).guidance,
    ) == (1, 1)
    assert drawing_of(models.teacher, 50, first_seed=7).steps == 50


def test_individuals_are_of_different_classes_and_share_all_that_words_say_with_their_lookalikes():
    shown = subjects(8)
    assert len({subject.identity.cls for subject in shown}) == 8
    for subject in shown:
        assert len(subject.faces) == CANDIDATES
        assert len({(face.cls, face.colour, face.pattern) for face in subject.faces}) == 1
        assert len(set(subject.faces)) == CANDIDATES
        assert not is_unseen(subject.identity.cls, subject.identity.colour)
    assert shown == subjects(8)


def test_pictures_of_one_prompt_that_are_equal_are_at_no_distance():
    same = torch.ones((2, 3, 4))
    assert mean_pairwise_distance(same) == 0
    apart = torch.eye(3)[None]  # one prompt, three pictures that share nothing
    assert mean_pairwise_distance(apart) == pytest.approx(2**0.5)


def test_blur_takes_detail_away_and_noise_adds_it():
    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(0, 255, (2, 8, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    blurred = ((sharp.astype(int) + np.roll(sharp, 1, axis=1) + np.roll(sharp, 1, axis=2)) // 3).astype(np.uint8)
    noisy = np.clip(sharp.astype(int) + rng.integers(-20, 20, sharp.shape), 0, 255).astype(np.uint8)
    assert detail(blurred) < detail(sharp) < detail(noisy)


def test_swing_is_measured_over_the_second_half_of_a_run():
    steady = [{"step": k, "sample_mean": 5.0 if k < 4 else 1.0} for k in range(8)]
    assert swing_of({"signals": steady}) == 0
    assert swing_of({"signals": [{"step": k, "sample_mean": float(k % 2)} for k in range(8)]}) == 0.5
