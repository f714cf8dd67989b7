"""The contact sheet: what went in, and beside it what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE = 128  # pixels a side; pictures are enlarged without smoothing
GAP = 8
MARGIN = 24
LABEL = 120  # width of the row labels
LINE = 24  # height of a line of text
PAPER, INK, FAINT = (252, 251, 248), (30, 30, 36), (120, 120, 128)


@dataclass(frozen=True)
class Row:
    """A row of the sheet; ``words`` stand before the pictures, one line each."""

    words: tuple[str, ...]
    pictures: Sequence[Image.Image]


def compose(*, title: str, inputs: Row, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Lay out the inputs, then a table of outputs under its column names."""
    wide = max(len(inputs.pictures), len(columns))
    width = 2 * MARGIN + LABEL + wide * (TILE + GAP)
    height = 2 * MARGIN + 4 * LINE + (1 + len(rows)) * (TILE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    heading, plain = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    pen.text((MARGIN, MARGIN), title, INK, heading)
    top = MARGIN + 2 * LINE
    _draw_row(sheet, pen, plain, inputs, top)
    top += TILE + GAP + LINE
    for number, column in enumerate(columns):
        pen.text((_left(number), top), column, FAINT, plain)
    top += LINE
    for row in rows:
        _draw_row(sheet, pen, plain, row, top)
        top += TILE + GAP
    return sheet


def _left(column: int) -> int:
    return MARGIN + LABEL + column * (TILE + GAP)


def _draw_row(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    row: Row,
    top: int,
) -> None:
    pen.multiline_text((MARGIN, top + GAP), "\n".join(row.words), INK, font, spacing=6)
    for number, picture in enumerate(row.pictures):
        tile = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)
        sheet.paste(tile, (_left(number), top))
