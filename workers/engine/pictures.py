"""Pictures in and out: bounded decoding of files, and the way between Pillow images and tensors in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from workers.engine.errors import PictureUnreadable

# Decoded at 4 bytes a pixel this is 200 MB: more than any camera's picture, less than a decompression bomb.
MAX_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_SHEET_COLUMNS = 4
_SHEET_QUALITY = 90  # of WebP, a tenth of the bytes of PNG


def load_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture file upright and in RGB, transparency over white; raises PictureUnreadable."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height} pixels"
                raise PictureUnreadable(f"{path.name} has {size}; {max_pixels} in all are the most")
            upright = ImageOps.exif_transpose(image)
            canvas = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(canvas, upright.convert("RGBA")).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise PictureUnreadable(f"{path.name} is not a picture that can be read: {error}") from error


def to_pixels(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """Crop pictures to their central square, resize and stack them to (B, 3, size, size)."""
    squares = [ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS) for picture in pictures]
    stacked = torch.stack([torch.from_numpy(np.asarray(square).copy()) for square in squares])  # (B, size, size, 3)
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Turn (B, 3, height, width) into Pillow images, rounding to the nearest grey level."""
    levels = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().cpu()  # (B, 3, height, width)
    return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in levels]


def save_sheet(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures of one size onto one sheet, row by row, as a WebP file."""
    width, height = pictures[0].size
    columns = min(_SHEET_COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, ((index % columns) * width, (index // columns) * height))
    sheet.save(path, format="WEBP", quality=_SHEET_QUALITY)
