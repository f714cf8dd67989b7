"""The GPU child, as a real process over a real pipe."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from PIL import Image

from tests.engine.child_process import PATIENCE, ChildProcess
from tests.engine.concepts import random_concept
from tests.engine.conftest import BUNDLED_CLIP, random_pictures
from tests.provenance import facts_of
from workers import protocol
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.checkpoint import Checkpoint
from workers.engine.perfusion.concept import ConceptFile

PLAIN = protocol.GenerateItem("plain", "a red cat", "", seed=1, steps=2, guidance=3.0, width=16, height=16)


@pytest.fixture(scope="module")
def child() -> Iterator[ChildProcess]:
    """One child for the tests that leave it alive."""
    process = ChildProcess()
    yield process
    process.close()


@pytest.fixture
def train(tiny_folder: Path, tmp_path: Path) -> protocol.Train:
    """A short training on three picture files."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for picture, path in zip(random_pictures(3), paths, strict=True):
        picture.save(path)
    training = protocol.Training(
        request_id="tom",
        pictures=tuple(str(path) for path in paths),
        superclass="cat",
        settings={"steps": 4, "checkpoint_every": 2},
        seed=0,
        resume_from=None,
        scratch_dir=str(tmp_path),
    )
    return protocol.Train("train", str(tiny_folder), (training,))


def changed(train: protocol.Train, **changes: object) -> protocol.Train:
    """The same with another training."""
    (training,) = train.trainings
    return replace(train, trainings=(replace(training, **changes),))  # type: ignore[arg-type]  # any field


def generate(folder: Path, scratch: Path, *items: protocol.GenerateItem) -> protocol.Generate:
    return protocol.Generate("generate", str(folder), items, str(scratch))


def test_it_says_what_device_it_has(child: ChildProcess) -> None:
    assert child.ready == protocol.Ready("cpu", "cpu")


def test_a_concept_is_trained_and_rendered(
    child: ChildProcess, train: protocol.Train, tiny: BaseModel, tiny_folder: Path, tmp_path: Path
) -> None:
    child.send(train)
    assert child.receive(protocol.Progress).steps == 4
    assert child.receive(protocol.Checkpoint).step == 2
    trained = child.receive(protocol.Trained)
    child.receive(protocol.TrainingsEnded)
    assert trained.size_bytes == Path(trained.path).stat().st_size
    assert {"loss", "seconds"} <= set(trained.metrics)
    tiny.adopt(ConceptFile.load(Path(trained.path)))

    use = protocol.ConceptUse("tom", trained.path, gate_bias=0.6, gate_temperature=0.15, key_lock="local")
    child.send(generate(tiny_folder, tmp_path, PLAIN, replace(PLAIN, item_id="tom", prompt="<tom>", concepts=(use,))))
    generated = child.receive(protocol.Generated)
    assert [output.item_id for output in generated.outputs] == ["plain", "tom"]
    assert generated.failures == ()
    for output in generated.outputs:
        with Image.open(str(output.path)) as picture:
            assert (picture.format, picture.size, output.seed) == ("PNG", (16, 16), 1)


def test_a_picture_says_which_weights_drew_it(
    child: ChildProcess, tiny: BaseModel, tiny_folder: Path, tmp_path: Path
) -> None:
    told = protocol.PictureFile("webp", facts={"prompt": PLAIN.prompt})
    child.send(generate(tiny_folder, tmp_path, replace(PLAIN, file=told)))
    (output,) = child.receive(protocol.Generated).outputs
    assert facts_of(Path(str(output.path)).read_bytes()) == {"prompt": PLAIN.prompt, "weights": tiny.weights}


def test_a_withheld_picture_is_not_written_anywhere(tiny_folder: Path, tmp_path: Path) -> None:
    child = ChildProcess("--safety-checker", "tests.checkers:Brightness", "--safety-threshold", "0")
    try:
        items = [replace(PLAIN, item_id=policy, safety=policy) for policy in ("off", "flag", "block")]
        child.send(generate(tiny_folder, tmp_path, *items))
        off, flagged, blocked = child.receive(protocol.Generated).outputs
    finally:
        child.close()
    assert off.verdict is None
    assert [image.verdict is not None and image.verdict.unsafe for image in (flagged, blocked)] == [True, True]
    assert blocked.path is None
    assert sorted(str(path) for path in tmp_path.iterdir()) == [off.path, flagged.path]


def test_a_model_is_loaded_once(child: ChildProcess, tiny_folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model"
    renamed.symlink_to(tiny_folder)
    child.send(generate(renamed, tmp_path, PLAIN))
    assert child.receive(protocol.Loading).model == str(renamed)
    child.receive(protocol.Generated)
    child.send(generate(renamed, tmp_path, PLAIN))
    assert child.pipe.poll(PATIENCE)
    assert isinstance(child.pipe.recv(), protocol.Progress)  # no Loading before it
    child.receive(protocol.Generated)


def test_bad_items_fail_alone(child: ChildProcess, tiny: BaseModel, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"broken")
    stranger = ConceptFile(random_concept(tiny, 1), "other", "0" * 64, "0" * 64, tiny.projections.widths)
    stranger.save(tmp_path / "stranger")

    def using(item_id: str, path: str, key_lock: str = "local") -> protocol.GenerateItem:
        use = protocol.ConceptUse("tom", path, gate_bias=0.6, gate_temperature=0.15, key_lock=key_lock)
        return replace(PLAIN, item_id=item_id, prompt="<tom>", concepts=(use,))

    child.send(
        generate(
            tiny_folder,
            tmp_path,
            using("broken", str(tmp_path / "broken")),
            PLAIN,
            using("stranger", str(tmp_path / "stranger")),
            replace(PLAIN, item_id="unknown", prompt="<rex>"),
            using("lock", str(tmp_path / "stranger"), key_lock="tight"),
        )
    )
    generated = child.receive(protocol.Generated)
    assert [output.item_id for output in generated.outputs] == ["plain"]
    assert {failure.item_id: failure.code for failure in generated.failures} == {
        "broken": "concept-unreadable",
        "stranger": "concept-base-mismatch",
        "unknown": "placeholder-unknown",
        "lock": "settings-invalid",
    }
    assert not any(failure.retryable for failure in generated.failures)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"superclass": ""}, "superclass-invalid"),
        ({"pictures": ()}, "pictures-invalid"),
        ({"pictures": ("/no/such/picture.png",)}, "picture-unreadable"),
        ({"settings": {"speed": 3}}, "settings-invalid"),
    ],
)
def test_a_training_that_cannot_be_done_fails_with_its_code_and_the_child_lives_on(
    child: ChildProcess, train: protocol.Train, change: dict[str, object], code: str
) -> None:
    child.send(changed(train, **change))
    assert failure(child) == protocol.Failed("tom", code, message=ANY, retryable=False)
    child.receive(protocol.TrainingsEnded)


def test_a_validated_training_tells_its_scores_and_the_recommended_bias_and_shows_itself(
    child: ChildProcess, train: protocol.Train, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "validated")
    card = json.loads((folder / "lockstep.json").read_text())
    clip = str(BUNDLED_CLIP)
    settings = {"steps": 4, "validate_every": 2, "gate_biases": [0.5], "validation_prompts": ["a {}"]}
    (folder / "lockstep.json").write_text(
        json.dumps({**card, "validation": {"clip": clip, "steps": 2}, "preview": {"steps": 2}})
    )
    child.send(replace(changed(train, settings=settings), model=str(folder)))
    assert "harmonic_mean" in child.receive(protocol.Progress, until=lambda progress: progress.step == 3).metrics
    preview = child.receive(protocol.Preview)
    assert (preview.request_id, preview.step, Path(preview.path).exists()) == ("tom", 4, True)
    trained = child.receive(protocol.Trained)
    assert (trained.gate_bias, ConceptFile.load(Path(trained.path)).gate_bias) == (0.5, 0.5)
    assert {"loss", "clip_i", "clip_t", "harmonic_mean", "steps", "seconds"} == set(trained.metrics)
    child.receive(protocol.TrainingsEnded)


def test_a_validation_that_cannot_be_opened_fails_the_work_as_a_whole(
    child: ChildProcess, train: protocol.Train, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "validated")
    (folder / "lockstep.json").write_text('{"validation": {"clip": "no/such folder"}}')
    child.send(replace(train, model=str(folder)))
    assert failure(child) == protocol.Failed("train", "model-unreadable", message=ANY, retryable=False)


def test_a_model_that_cannot_be_opened_fails_the_work_as_a_whole(child: ChildProcess, train: protocol.Train) -> None:
    child.send(replace(train, model="/no/such/folder"))
    assert failure(child) == protocol.Failed("train", "model-unreadable", message=ANY, retryable=False)


def test_trainings_of_a_cohort_fail_stop_and_end_each_by_its_own_name(
    child: ChildProcess, train: protocol.Train, tmp_path: Path
) -> None:
    (tom,) = train.trainings
    long = replace(tom, request_id="long", settings={"steps": 5000}, scratch_dir=str(tmp_path / "long"))
    Path(long.scratch_dir).mkdir()
    nameless = replace(tom, request_id="nameless", superclass="")
    child.send(replace(train, trainings=(nameless, long, tom)))
    assert failure(child).request_id == "nameless"
    assert child.receive(protocol.Trained).request_id == "tom"
    child.send(protocol.Stop("long"))
    stopped = child.receive(protocol.Stopped)
    assert (stopped.request_id, stopped.step >= 4) == ("long", True)
    assert child.receive(protocol.TrainingsEnded).request_id == "train"


def failure(child: ChildProcess) -> protocol.Failed:
    while not isinstance(message := child.pipe.recv(), protocol.Failed):
        assert isinstance(message, protocol.Loading | protocol.Warm | protocol.Progress)
    return message


def test_a_stopped_training_goes_on_from_its_checkpoint(child: ChildProcess, train: protocol.Train) -> None:
    long = changed(train, settings={"steps": 5000, "checkpoint_every": 1000})
    child.send(long)
    child.receive(protocol.Progress, until=lambda progress: progress.step == 3)
    child.send(protocol.Stop("another"))
    child.send(protocol.Stop("tom"))
    stopped = child.receive(protocol.Stopped)
    child.receive(protocol.TrainingsEnded)
    assert stopped.step >= 3
    assert stopped.checkpoint_path is not None
    child.send(changed(long, resume_from=stopped.checkpoint_path))
    assert child.receive(protocol.Progress).step == stopped.step + 1
    child.send(protocol.Stop("tom"))
    child.receive(protocol.Stopped)
    child.receive(protocol.TrainingsEnded)


def test_a_training_starts_over_where_its_checkpoint_does_not_fit(child: ChildProcess, train: protocol.Train) -> None:
    child.send(changed(train, resume_from="/no/such/checkpoint"))
    assert child.receive(protocol.Progress).step == 1
    child.receive(protocol.TrainingsEnded)


def test_a_late_stop_does_not_hit_the_next_attempt_under_the_same_id(
    child: ChildProcess, train: protocol.Train
) -> None:
    child.send(train)
    child.receive(protocol.TrainingsEnded)
    child.send(protocol.Stop("tom"))
    child.send(train)
    child.receive(protocol.TrainingsEnded)


def test_a_stopped_generation_ends_between_two_steps(child: ChildProcess, tiny_folder: Path, tmp_path: Path) -> None:
    child.send(generate(tiny_folder, tmp_path, replace(PLAIN, steps=1000)))
    child.receive(protocol.Progress, until=lambda progress: progress.step == 2)
    child.send(protocol.Stop("generate"))
    stopped = child.receive(protocol.Stopped)
    assert 2 <= stopped.step < 1000
    assert stopped.checkpoint_path is None


def test_a_child_killed_in_mid_training_leaves_whole_checkpoints_to_resume_from(
    child: ChildProcess, train: protocol.Train
) -> None:
    endless = changed(train, settings={"steps": 5000, "checkpoint_every": 1})
    victim = ChildProcess()
    victim.send(endless)
    victim.receive(protocol.Checkpoint, until=lambda checkpoint: checkpoint.step == 3)
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.close()
    checkpoints = sorted(Path(train.trainings[0].scratch_dir).glob("checkpoint-*.safetensors"))
    assert [Checkpoint.load(path).step for path in checkpoints] == list(range(1, len(checkpoints) + 1))

    child.send(changed(endless, resume_from=str(checkpoints[-1])))
    assert child.receive(protocol.Progress).step == len(checkpoints) + 1
    child.send(protocol.Stop("tom"))
    child.receive(protocol.Stopped)
    child.receive(protocol.TrainingsEnded)


def test_the_child_ends_at_once_when_its_parent_is_gone(train: protocol.Train) -> None:
    orphan = ChildProcess()
    orphan.send(changed(train, settings={"steps": 10_000}))
    orphan.receive(protocol.Progress)
    orphan.pipe.close()
    assert orphan.process.wait(PATIENCE) == 3


def test_a_shutdown_lets_the_work_at_hand_end(child: ChildProcess, train: protocol.Train) -> None:
    # The last test of this file: the shared child is gone after it.
    child.send(train)
    child.send(protocol.Shutdown())
    child.receive(protocol.TrainingsEnded)
    assert child.process.wait(PATIENCE) == 0
