"""Picture files in, pictures out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.engine.errors import PictureUnreadable
from workers.engine.pictures import load_picture, to_pictures, to_pixels


def test_levels_survive_the_way_to_tensors_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(np.stack([levels, levels.T, 255 - levels], -1))
    pixels = to_pixels([picture], 16)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)
    assert np.array_equal(np.asarray(to_pictures(pixels)[0]), np.asarray(picture))


def test_pictures_are_cropped_to_their_centre_and_not_squashed() -> None:
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste("blue", (16, 0, 32, 16))
    assert torch.equal(to_pixels([wide], 16), to_pixels([Image.new("RGB", (16, 16), "blue")], 16))


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_cameras_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 4), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert load_picture(tmp_path / "turned.jpg").size == (4, 8)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.new(mode, (4, 4)).save(path)
    assert load_picture(path).mode == "RGB"


def test_what_is_no_whole_picture_of_a_known_format_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.bmp")
    for name in ("truncated.png", "text.png", "picture.bmp", "missing.png"):
        with pytest.raises(PictureUnreadable):
            load_picture(tmp_path / name)


def test_size_is_checked_before_decoding(tmp_path: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "bomb.png")  # 60 million pixels in a few kilobytes
    with pytest.raises(PictureUnreadable, match="10000 x 6000"):
        load_picture(tmp_path / "bomb.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(PictureUnreadable):
        load_picture(tmp_path / "bomb.png")
