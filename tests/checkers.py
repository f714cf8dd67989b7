"""Safety checkers that judge what a test can see for itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from PIL import Image


class Brightness:
    """The mean level of a picture, as a share of white."""

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        return [float(np.asarray(picture).mean()) / 255 for picture in pictures]


class Broken:
    """A checker that fails on every picture."""

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        raise RuntimeError("no weights for this device")


class Nonsense:
    """A checker whose network has diverged."""

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        return [float("nan") for _ in pictures]


class Empty:
    """A checker that leaves out what it cannot read."""

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        return [0.0 for picture in pictures if picture.width > 10_000]


class Unshared:
    """A checker that two threads may not use at once."""

    opened = 0

    def __init__(self) -> None:
        Unshared.opened += 1
        self._is_in_use = False

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        assert not self._is_in_use
        self._is_in_use = True
        time.sleep(0.01)
        self._is_in_use = False
        return [0.0 for _ in pictures]
