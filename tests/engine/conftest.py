"""Base models for the engine's tests: a random miniature by default, the bundled one where pictures matter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.drawing import Drawing
from workers.engine.quiet import silence_loading

BUNDLED_MODEL = Path(__file__).parents[2] / "models" / "storybook"
BUNDLED_CLIP = BUNDLED_MODEL.parent / "storybook-clip"
DRAWING = Drawing(
    student=None,
    steps=2,
    guidance=3.0,
    gate_bias={"local": 0.6, "global": 0.5, "trained": 0.6},
    gate_temperature=0.15,
)
"""How concepts of the miniature are drawn while they train."""


@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    """Bit-exactness is stated for one thread; progress bars would fill the log."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    silence_loading()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature pipeline's folder, for reading."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> BaseModel:
    """The miniature pipeline, loaded."""
    return load(tiny_folder)


@pytest.fixture(scope="session")
def tiny_xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDXL-shaped miniature's folder, for reading."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny-xl"), family="sdxl")


@pytest.fixture(scope="session")
def tiny_xl(tiny_xl_folder: Path) -> BaseModel:
    """The SDXL-shaped miniature, loaded."""
    return load(tiny_xl_folder)


@pytest.fixture(scope="session")
def storybook() -> BaseModel:
    """The bundled base model, loaded."""
    return load(BUNDLED_MODEL)


def load(folder: Path) -> BaseModel:
    return BaseModel.load(folder, device=torch.device("cpu"), dtype=torch.float32)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def random_pictures(count: int, size: int = 16) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(picture.numpy()) for picture in pixels]
