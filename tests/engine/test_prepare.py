"""Making a plain diffusers folder one that concepts can be learned on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from core.catalog.facts import read_facts
from tests.engine.conftest import load
from tests.engine.tiny import CAPTIONS
from workers.engine.errors import ModelUnreadable
from workers.engine.prepare import main, prepare

CPU = torch.device("cpu")


@pytest.fixture
def plain(tiny_folder: Path, tmp_path: Path) -> Path:
    """The miniature pipeline as diffusers writes it, without files of ours."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "Plain"))
    (folder / "covariance.safetensors").unlink()
    (folder / "lockstep.json").unlink()
    return folder


def test_a_prepared_folder_says_what_concepts_fit_it(plain: Path) -> None:
    prepare(plain, CAPTIONS, device=CPU)
    base, facts = load(plain), read_facts(str(plain))
    assert facts.concept_space is not None
    assert facts.concept_space.encoder == base.fingerprint
    assert facts.concept_space.covariance == base.covariance_sha256
    assert facts.concept_space.layer_widths == base.projections.widths


def test_what_the_networks_tell_is_written_down(plain: Path) -> None:
    prepare(plain, CAPTIONS, device=CPU)
    base, facts = load(plain), read_facts(str(plain))
    assert (facts.name, facts.size, facts.max_size) == ("plain", base.native_size, 2 * base.native_size)
    base.latent_shape(facts.size_multiple, facts.size_multiple)  # the least that is told is one it can draw


def test_what_a_folder_says_of_itself_stays(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    said = json.loads((folder / "lockstep.json").read_text())
    prepare(folder, CAPTIONS, device=CPU)
    written = json.loads((folder / "lockstep.json").read_text())
    assert written | said == written
    assert written["concept_space"]["covariance"] == load(folder).covariance_sha256


def test_the_same_captions_make_the_same_metric(plain: Path) -> None:
    once = prepare(plain, CAPTIONS, device=CPU)
    assert prepare(plain, CAPTIONS, device=CPU) == once


def test_captions_come_from_a_file_or_lie_beside_the_weights(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    main([str(plain), "--captions", str(tmp_path / "captions.txt")])
    first = json.loads(capsys.readouterr().out)
    (plain / "prompts.txt").write_text("\n".join([*CAPTIONS, "", "cat " * 30]))  # nothing, and more than it reads
    main([str(plain)])
    assert json.loads(capsys.readouterr().out) == first


def test_too_few_captions_are_refused_and_nothing_is_written(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plain / "prompts.txt").write_text("a cat\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(plain)])
    assert stopped.value.code == 1
    assert "320 are needed" in capsys.readouterr().err
    assert not (plain / "covariance.safetensors").exists()
    assert not (plain / "lockstep.json").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelUnreadable):
        prepare(tmp_path, CAPTIONS, device=CPU)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "prompts.txt" in capsys.readouterr().err
