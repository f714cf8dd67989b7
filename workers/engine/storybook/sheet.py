"""The contact sheet: fixed prompts and noise, so that sheets of different weights can be compared by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from workers.engine.storybook.judges import Pictures
from workers.engine.storybook.scores import generate

PROMPTS: Final = (
    "a red cat",
    "a blue car",
    "a green robot on a yellow background",
    "a striped orange dog",
    "a spotted purple fish on a white background",
    "a yellow bird on a blue background",
    "a white rabbit on a green background",
    "a black teapot",
    "a red house in the snow",
    "a white boat on the beach",
    "a purple robot in the city at night",
    "an orange cat in the forest",
    "a black dog wearing a red hat",
    "a yellow car in the city",
    "a blue bird and a red house",
    "a pencil sketch of a cat",
    "a spotted green cat on the beach",
    "a white cat wearing sunglasses in the snow",
    "a blue dog wearing a yellow scarf in the forest",
    "a striped red fish in the city",
    "an orange rabbit wearing a blue hat on the beach",
    "a green teapot in the forest at night",
    "a purple house at the beach",
    "a striped blue boat in the snow at night",
)
COLUMNS: Final = 8
_ZOOM: Final = 2


def draw_sheet(pipeline: StableDiffusionPipeline, path: Path, *, steps: int, guidance: float, count: int) -> None:
    """Draw the first `count` prompts and write them as one PNG."""
    write_grid(generate(pipeline, PROMPTS[:count], steps=steps, guidance=guidance, seed=3), path)


def write_grid(pictures: Pictures | Sequence[Pictures], path: Path, columns: int = COLUMNS) -> None:
    """Write pictures (N, 64, 64, 3) row by row; a last row that is not full is filled with black."""
    tiles = list(pictures)
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * _ZOOM, sheet.height * _ZOOM), Image.Resampling.NEAREST).save(path, optimize=True)
