"""The page about concept files says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from core.concepts.header import MEDIA_TYPE
from tests.concept_files import tensor_shapes
from tests.engine.concepts import concept_file, random_concept
from tests.engine.conftest import BUNDLED_MODEL
from tests.engine.full_size import SD15, SDXL
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.concept import FORMAT, KeyLock, concept_size_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "concept-files.md").read_text()
OPTIONAL = {"key_outputs", "embedding_2"}


@pytest.fixture(scope="module")
def saved(storybook: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "tom-v1.safetensors"
    concept_file(storybook, random_concept(storybook, 1), gate_bias=0.6).save(path)
    return path


def column(heading: str) -> list[str]:
    """The first cell of every row of the table that begins with this heading."""
    rows = PAGE.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip().strip("`") for row in rows]


def test_the_page_names_the_tensors_and_the_fields_of_a_file(saved: Path):
    with safe_open(saved, framework="pt") as file:
        assert set(column("tensor")) == {*file.keys(), *OPTIONAL}
        assert set(column("field")) == set(file.metadata())
    assert set(tensor_shapes()) | OPTIONAL == set(column("tensor"))
    assert f"`{FORMAT}`" in PAGE
    assert f"`{MEDIA_TYPE}`" in PAGE


def test_the_sizes_are_those_of_the_formula(storybook: BaseModel):
    bundled = (storybook.projections.widths, storybook.text.width)
    files = [(family.make_file(KeyLock.LOCAL).layer_widths, family.encoder_width) for family in (SD15, SDXL)]
    for widths, encoder_width in (bundled, *files):
        locked = concept_size_bytes(widths, encoder_width)
        numbers = (sum(widths), encoder_width, locked, locked + 2 * sum(widths))
        assert " | ".join(f"{number:,}" for number in numbers) in PAGE


def test_the_snippet_draws_a_picture(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "models").symlink_to(BUNDLED_MODEL.parent)
    (tmp_path / saved.name).symlink_to(saved)
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(snippet, "docs/concept-files.md", "exec"), {})
    with Image.open("tom-on-the-beach.png") as picture:
        assert picture.size == (64, 64)
