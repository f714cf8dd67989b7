"""The contact sheet: fixed prompts and noise, so that sheets of different weights can be compared by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from workers.engine.storybook.judges import Pictures

PROMPTS: Final = (
    "a red cat",
    "a striped orange dog",
    "a white rabbit on a green background",
    "a yellow bird on a blue background",
    "a spotted purple fish on a white background",
    "a green robot on a yellow background",
    "a black teapot",
    "a striped blue mug on a red background",
    "a red house in the snow",
    "a blue car in the city",
    "a white boat on the beach",
    "a purple chair in a room",
    "green sunglasses on a yellow background",
    "a striped red hat in the snow",
    "a spotted blue scarf in a room",
    "an orange cat in the forest",
    "a black dog wearing a red hat",
    "a white cat wearing black sunglasses in the snow",
    "a blue dog wearing a yellow scarf in the forest",
    "an orange rabbit wearing a striped blue hat on the beach",
    "a green robot wearing purple sunglasses in space",
    "a spotted green cat in space",
    "a striped red fish in the city",
    "a yellow bird in a room",
    "a purple robot in the city at night",
    "a striped blue boat in the snow at night",
    "a pencil sketch of a cat",
    "a pencil sketch of a house in the forest",
    "a watercolor of a red rabbit in the forest",
    "a watercolor painting of a blue teapot in a room",
    "a blue bird and a red house",
    "a black cat and a white dog and a red car on the beach",
)
COLUMNS: Final = 8
_ZOOM: Final = 2


def write_grid(pictures: Pictures | Sequence[Pictures], path: Path, columns: int = COLUMNS) -> None:
    """Write pictures (N, 64, 64, 3) row by row; a last row that is not full is filled with black."""
    tiles = list(pictures)
    columns = min(columns, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * _ZOOM, sheet.height * _ZOOM), Image.Resampling.NEAREST).save(path, optimize=True)
