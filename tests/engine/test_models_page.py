"""The page about base models names every key and setting, with the defaults that hold."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from core.catalog.facts import ModelFacts
from workers.engine.dmd.config import DistillationConfig
from workers.engine.perfusion.config import PerfusionConfig

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
READ_ELSEWHERE = {"prompts"}  # from prompts.txt
OF_THE_ENGINE = {"guidance_interval", "validation", "preview", "segmenter", "decoder"}  # nothing the API needs
IN_WORDS = {"templates", "validation_prompts"}


def table(heading: str) -> dict[str, str]:
    """The defaults by key of the table under this heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))


def shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return f"`{value}`"
        case tuple():
            return f"`{list(value)}`"
        case _:
            return str(value)


def test_the_keys_of_a_model_are_those_that_are_read() -> None:
    told = table("lockstep.json")
    assert set(told) == set(ModelFacts.model_fields) - READ_ELSEWHERE | OF_THE_ENGINE
    defaults = ModelFacts(name="any").model_dump()
    said = (
        "size",
        "size_multiple",
        "min_size",
        "max_size",
        "default_steps",
        "max_steps",
        "default_guidance",
        "guidance",
    )
    for name in (*said, "default_pairs"):
        assert told[name] == shown(defaults[name])


@pytest.mark.parametrize(
    ("heading", "config"), [("Training settings", PerfusionConfig()), ("Distillation settings", DistillationConfig())]
)
def test_the_settings_are_told_with_their_defaults(heading: str, config: PerfusionConfig | DistillationConfig) -> None:
    told = table(heading)
    assert set(told) == {field.name for field in fields(config)}
    defaults = {name: shown(getattr(config, name)) for name in told}
    assert {name: default for name, default in defaults.items() if name not in IN_WORDS} == {
        name: default for name, default in told.items() if name not in IN_WORDS
    }
