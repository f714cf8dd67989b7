from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from infra.demo import sheet
from infra.demo.sheet import Row

RED, BLUE = (200, 10, 10), (10, 10, 200)


def picture(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def count_of(colour: tuple[int, int, int], drawn: Image.Image) -> int:
    """How many pixels have exactly this colour."""
    return int((np.asarray(drawn) == colour).all(axis=2).sum())


def test_every_picture_is_on_the_sheet_at_full_size():
    drawn = sheet.compose(
        title="Learned from 2 pictures",
        inputs=Row(("in",), [picture(RED)] * 2),
        columns=["beach", "snow", "forest"],
        rows=[Row(("out",), [picture(BLUE)] * 3), Row(("out",), [picture(BLUE)] * 3)],
    )
    assert count_of(RED, drawn) == 2 * sheet.TILE**2
    assert count_of(BLUE, drawn) == 6 * sheet.TILE**2


@pytest.mark.parametrize(("title", "is_inked"), [("", False), ("Learned", True)])
def test_the_title_is_drawn(title: str, is_inked: bool):
    inputs, rows = Row((), [picture(RED)]), [Row((), [picture(BLUE)])]
    drawn = sheet.compose(title=title, inputs=inputs, columns=[""], rows=rows)
    assert bool(count_of(sheet.INK, drawn)) is is_inked
