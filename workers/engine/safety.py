"""Judging pictures before anybody sees them.

What judges is not ours: any checker that is installed beside the engine can be named as ``package.module:name``, a
class or function that takes no arguments and returns a `SafetyChecker`. `workers.engine.open_nsfw` is one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from PIL import Image

from workers.engine.errors import SafetyCheckerUnavailable
from workers.protocol import Verdict

_log = logging.getLogger(__name__)


class SafetyChecker(Protocol):
    """A judge of pictures, used by one thread at a time."""

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        """How sure it is that each RGB picture is unsafe, from 0 to 1."""


class Guard:
    """Judges for those who want it.

    The checker is opened when it is first needed, and a picture that it fails on does not pass.
    """

    def __init__(self, checker: str | None, *, threshold: float) -> None:
        self._named = checker
        self._threshold = threshold
        self._opened: SafetyChecker | None = None
        self._in_use = threading.Lock()

    def require(self) -> None:
        """Raise SafetyCheckerUnavailable unless pictures can be judged here."""
        self._checker()

    def judge(self, picture: Image.Image) -> Verdict:
        """The checker's word on a picture; raises SafetyCheckerUnavailable where it has none."""
        checker = self._checker()
        try:
            with self._in_use:
                (score,) = map(float, checker.check([picture]))
        except Exception as error:  # whatever somebody else's code raises, the others' pictures must not suffer
            _log.exception("the safety checker failed")
            raise SafetyCheckerUnavailable("The safety checker failed; its worker's log says why.") from error
        if not 0 <= score <= 1:  # also what is not a number
            raise SafetyCheckerUnavailable(f"The safety checker gave a score of {score}, which is not from 0 to 1.")
        return Verdict(score, unsafe=score >= self._threshold)

    def _checker(self) -> SafetyChecker:
        with self._in_use:
            if self._opened is None:
                self._opened = _open(self._named)
            return self._opened


def _open(named: str | None) -> SafetyChecker:
    if named is None:
        raise SafetyCheckerUnavailable("Pictures are to be checked, and this worker has no safety checker.")
    module, _, name = named.partition(":")
    try:
        opened: SafetyChecker = getattr(import_module(module), name)()
    except Exception as error:  # a package that is missing, weights that are damaged: it is somebody else's code
        _log.exception("the safety checker %s cannot be opened", named)
        raise SafetyCheckerUnavailable("The safety checker cannot be opened; its worker's log says why.") from error
    return opened
