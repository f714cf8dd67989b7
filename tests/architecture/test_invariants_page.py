"""The page of invariants names each of them, with its number."""

from __future__ import annotations

import pytest

from core.invariants.checks import INVARIANTS, Invariant
from tests.architecture.source import ROOT


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_an_invariant_is_documented(invariant: Invariant):
    assert f"| {invariant.code} | `{invariant.name}` |" in (ROOT / "docs" / "invariants.md").read_text()
