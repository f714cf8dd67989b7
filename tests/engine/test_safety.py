"""Judging pictures: by any checker, at a threshold, and never in favour of what could not be judged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.checkers import Unshared
from workers.engine.errors import SafetyCheckerUnavailable
from workers.engine.safety import Guard
from workers.protocol import Verdict

GREY = Image.new("RGB", (8, 8), (51, 51, 51))  # a fifth of white


@pytest.mark.parametrize(("threshold", "unsafe"), [(0.1, True), (0.2, True), (0.3, False)])
def test_a_picture_is_unsafe_from_the_threshold_on(threshold: float, unsafe: bool) -> None:
    guard = Guard("tests.checkers:Brightness", threshold=threshold)
    guard.require()
    assert guard.judge(GREY) == Verdict(pytest.approx(0.2), unsafe)  # type: ignore[arg-type]  # equal within rounding


@pytest.mark.parametrize(
    "named", [None, "", "tests.checkers", "tests.checkers:Missing", "no.such.module:Checker", "tests.checkers:GREY"]
)
def test_without_a_checker_that_can_be_opened_nothing_is_accepted(named: str | None) -> None:
    guard = Guard(named, threshold=0.5)
    with pytest.raises(SafetyCheckerUnavailable) as caught:
        guard.require()
    assert "no.such" not in str(caught.value)  # the tenant reads it; the operator has the log
    with pytest.raises(SafetyCheckerUnavailable):
        guard.judge(GREY)


@pytest.mark.parametrize("name", ["Broken", "Nonsense", "Empty"])
def test_a_picture_that_the_checker_fails_on_does_not_pass(name: str) -> None:
    guard = Guard(f"tests.checkers:{name}", threshold=0.5)
    guard.require()
    with pytest.raises(SafetyCheckerUnavailable):
        guard.judge(GREY)


def test_a_checker_is_opened_once_and_used_by_one_thread_at_a_time() -> None:
    opened, guard = Unshared.opened, Guard("tests.checkers:Unshared", threshold=0.5)
    with ThreadPoolExecutor(8) as scribes:
        verdicts = list(scribes.map(guard.judge, [GREY] * 16))
    assert verdicts == [Verdict(0.0, unsafe=False)] * 16
    assert Unshared.opened == opened + 1
