"""What the README says can be typed, typed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.conftest import ROOT, RunningStack

SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks(page: str) -> list[str]:
    """The examples that are meant to be run one after the other."""
    return SHELL_BLOCK.findall(page)


@pytest.fixture(scope="module")
def typed(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every example was run, and what they printed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "docs").symlink_to(ROOT / "docs")
    script = "\n".join(shell_blocks((ROOT / "README.md").read_text()))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=stack.environment | {"LOCKSTEP_URL": stack.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_training_is_watched_to_its_success(typed: tuple[Path, str]):
    _, printed = typed
    assert "event: training.succeeded" in printed


def test_the_generation_is_answered_when_it_is_drawn(typed: tuple[Path, str]):
    folder, _ = typed
    assert json.loads((folder / "generation.json").read_text())["state"] == "succeeded"


def test_the_picture_is_downloaded(typed: tuple[Path, str]):
    folder, _ = typed
    with Image.open(folder / "tom-on-the-beach.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))


def test_the_concept_is_downloaded(typed: tuple[Path, str]):
    folder, _ = typed
    assert 1_000 < (folder / "tom.safetensors").stat().st_size < 100_000


def test_the_webhook_endpoint_has_a_secret(typed: tuple[Path, str]):
    _, printed = typed
    assert '"signing_secret":"whsec_' in printed
