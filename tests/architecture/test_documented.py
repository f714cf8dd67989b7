"""Every setting, event type and error code is in the documentation, and the documentation names no other setting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from core.errors import LockstepError
from core.events.types import ALL_TYPES
from tests.architecture.source import ROOT, parsed, python_files
from workers.engine.errors import EngineError

DOCS = ROOT / "docs"
OF_THE_CLIENT = {"LOCKSTEP_URL", "LOCKSTEP_API_KEY"}  # read by the SDK, not by the server
SETTINGS = {f"LOCKSTEP_{name.upper()}": field for name, field in Settings.model_fields.items()}


def error_codes(error: type[LockstepError | EngineError]) -> Iterator[str]:
    """The codes of an error's kinds, down to the leaves."""
    for kind in error.__subclasses__():
        if "code" in vars(kind):
            yield kind.code
        yield from error_codes(kind)


def job_error_codes() -> Iterator[str]:
    """Codes that are written where a ``JobError`` is made."""
    for path in python_files("core", "workers"):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Call(func=ast.Name(id="JobError"), args=[ast.Constant(value=str(code)), *_]):
                    yield code


ERROR_CODES = {*error_codes(LockstepError), *error_codes(EngineError), *job_error_codes()}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_setting_is_documented_with_its_description(name: str):
    page = (DOCS / "settings.md").read_text()
    assert f"`{name}`" in page
    assert (SETTINGS[name].description or "no description") in page


@pytest.mark.parametrize("event_type", ALL_TYPES)
def test_an_event_type_is_documented(event_type: str):
    assert f"`{event_type}`" in (DOCS / "events.md").read_text()


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_an_error_code_is_documented(code: str):
    assert f"`{code}`" in (DOCS / "errors.md").read_text()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_names_no_setting_that_does_not_exist(page: Path):
    named = set(re.findall(r"\bLOCKSTEP_[A-Z0-9_]+", page.read_text()))
    assert named <= SETTINGS.keys() | OF_THE_CLIENT


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
