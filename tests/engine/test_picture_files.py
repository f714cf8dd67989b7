"""Pictures as files: exact or smaller, and with the facts of their generation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.provenance import GENERATED, facts_of, source_of, written_facts
from workers.engine.picture_files import write_picture
from workers.protocol import PictureFile

FACTS = {"seed": 7, "prompt": "a cat"}


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def written(picture: Image.Image, folder: Path, file: PictureFile) -> Path:
    return write_picture(picture, folder / "image-0000", file, weights=lambda: "0123456789abcdef")


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_without_a_quality_every_pixel_is_exact(picture: Image.Image, tmp_path: Path, file_format: str) -> None:
    path = written(picture, tmp_path, PictureFile(file_format))
    with Image.open(path) as opened:
        assert (path.name, opened.format) == (f"image-0000.{file_format}", file_format.upper())
        assert opened.convert("RGB").tobytes() == picture.tobytes()


def test_a_lower_quality_makes_a_smaller_file(picture: Image.Image, tmp_path: Path) -> None:
    sizes = [written(picture, tmp_path, PictureFile("webp", quality)).stat().st_size for quality in (10, 90, None)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


@pytest.mark.parametrize("file", [PictureFile("png", facts=FACTS), PictureFile("webp", 80, FACTS)])
def test_a_file_says_how_it_was_drawn_and_by_which_weights(
    picture: Image.Image, tmp_path: Path, file: PictureFile
) -> None:
    content = written(picture, tmp_path, file).read_bytes()
    assert facts_of(content) == {**FACTS, "weights": "0123456789abcdef"}
    assert source_of(content) == GENERATED


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_without_facts_a_file_says_only_that_it_was_generated(
    picture: Image.Image, tmp_path: Path, file_format: str
) -> None:
    def costly() -> str:
        pytest.fail("nobody asked for the weights")

    content = write_picture(picture, tmp_path / "x", PictureFile(file_format), weights=costly).read_bytes()
    assert (written_facts(content), source_of(content)) == (None, GENERATED)


@pytest.mark.parametrize(
    "prompt", ["</rdf:RDF> & <tom>", "ein Kätzchen 🐈", "\x01\ufffe\u2028", 'a "quoted" \\ cat', "]]>"]
)
def test_a_prompt_is_told_as_it_is_and_cannot_be_more_than_text(
    picture: Image.Image, tmp_path: Path, prompt: str
) -> None:
    content = written(picture, tmp_path, PictureFile("webp", None, {"prompt": prompt})).read_bytes()
    assert facts_of(content)["prompt"] == prompt


def test_equal_facts_are_equal_bytes(picture: Image.Image, tmp_path: Path) -> None:
    contents = [
        written(picture, tmp_path, PictureFile(facts=facts)).read_bytes()
        for facts in (FACTS, dict(reversed(FACTS.items())))
    ]
    assert contents[0] == contents[1]
    told = {**FACTS, "weights": "0123456789abcdef"}
    assert written_facts(contents[0]) == json.dumps(told, sort_keys=True, separators=(",", ":"))
