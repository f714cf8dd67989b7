"""What is accepted as a picture, and what becomes of it."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib

import pytest
from PIL import Image

from core.errors import PictureTooLarge, PictureUnreadable
from core.files import pictures

MAX_PIXELS = 1_000_000


def encoded(image, kind, **save):
    data = io.BytesIO()
    image.save(data, kind, **save)
    return data.getvalue()


def drawn(size=(30, 20)):
    """A picture in which every pixel differs from its neighbours."""
    noise = random.Random(1)
    image = Image.new("RGB", size)
    image.putdata(
        [(noise.randrange(256), noise.randrange(256), noise.randrange(256)) for _ in range(size[0] * size[1])]
    )
    return image


def normalised(data, max_pixels=MAX_PIXELS):
    picture = pictures.normalise(data, max_pixels=max_pixels)
    image = Image.open(io.BytesIO(picture.png))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (picture.width, picture.height))
    return image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "JPEG"])
def test_the_usual_kinds_are_read(kind):
    lossless = {"WEBP": {"lossless": True}}.get(kind, {})
    image = normalised(encoded(drawn(), kind, **lossless))
    assert image.size == (30, 20)
    if kind in {"PNG", "WEBP"}:
        assert image.tobytes() == drawn().tobytes()


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "PDF", "EPS", "TGA"])
def test_other_kinds_are_not(kind):
    with pytest.raises(PictureUnreadable):
        normalised(encoded(drawn((32, 32)), kind))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_metadata_dropped(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}  # where it was taken
    image = normalised(encoded(drawn(), "PNG", exif=exif))
    assert image.size == ((30, 20) if orientation < 5 else (20, 30))
    assert not image.getexif()
    assert not image.info


def test_text_and_colour_profiles_are_dropped():
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Comment", "secret")
    image = normalised(encoded(drawn(), "PNG", pnginfo=notes, icc_profile=b"x" * 128))
    assert not image.info


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr"])
def test_colours_of_any_mode_become_rgb(mode):
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    grey = Image.new("L", (8, 8), 255).convert(mode)
    red, green, blue = normalised(encoded(grey, kind)).getpixel((4, 4))
    assert min(red, green, blue) > 250


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_shows_white(mode):
    clear = Image.new(mode, (8, 8), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    assert normalised(encoded(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_grey_of_sixteen_bits_keeps_its_shades():
    ramp = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 0x8000, 0xFFFF)):
        ramp.putpixel((x, 0), value)
    assert [normalised(encoded(ramp, "PNG")).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_of_several_frames_the_first_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert normalised(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_limit_on_pixels_holds_for_the_last_one(kind):
    data = encoded(Image.new("RGB", (100, 100)), kind)
    normalised(data, max_pixels=10_000)
    with pytest.raises(PictureTooLarge, match="100 x 100"):
        normalised(data, max_pixels=9_999)


def test_a_bomb_is_refused_by_its_header():
    small = encoded(Image.new("1", (1, 1)), "PNG")
    announced = b"IHDR" + struct.pack(">II", 60_000, 60_000) + small[24:29]  # 3.6 gigapixels, of which one is sent
    bomb = small[:12] + announced + struct.pack(">I", zlib.crc32(announced)) + small[33:]
    with pytest.raises(PictureTooLarge):
        normalised(bomb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_no_picture_can_be_cut_off_unnoticed(kind):
    data = encoded(drawn((64, 64)), kind)
    for length in (0, 1, 4, 12, 40, len(data) // 2, len(data) - len(data) // 8):
        with pytest.raises(PictureUnreadable):
            normalised(data[:length])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_damage_is_refused_or_survived_but_never_breaks_anything(kind):
    data, chance = encoded(drawn((64, 64)), kind), random.Random(7)
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 20)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(PictureUnreadable, PictureTooLarge):
            normalised(bytes(broken))
