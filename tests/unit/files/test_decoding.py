"""Pictures are decoded elsewhere: as in this process, and whatever happens to that one, this one goes on."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import psutil
import pytest
from PIL import Image

from core.errors import PictureTooLarge, PictureUnreadable
from core.files.decoding import Decoder
from core.files.pictures import normalise
from tests.decoders import decoding_processes, held_bytes
from tests.waiting import until

MOST_PIXELS = 30_000_000


def picture(side: int, format: str = "JPEG") -> bytes:  # noqa: A002 - Pillow's name for it
    encoded = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(encoded, format)
    return encoded.getvalue()


@pytest.fixture(scope="module")
def small() -> bytes:
    return picture(32, "PNG")


@pytest.fixture(scope="module")
def large() -> bytes:
    """It takes seconds."""
    return picture(5000)


@pytest.fixture
def make_decoder() -> Iterator[Callable[..., Decoder]]:
    made: list[Decoder] = []

    def make(**bounds: object) -> Decoder:
        made.append(Decoder(max_pixels=MOST_PIXELS, **bounds))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def test_a_picture_is_what_it_would_be_here(make_decoder: Callable[..., Decoder], small: bytes) -> None:
    assert make_decoder().normalise(small) == normalise(small, max_pixels=MOST_PIXELS)


def test_what_is_refused_here_is_refused_there_in_the_same_words(make_decoder: Callable[..., Decoder]) -> None:
    decoder, huge = make_decoder(), io.BytesIO()
    Image.new("1", (6000, 6000)).save(huge, "PNG")
    for data, error in ((b"no picture", PictureUnreadable), (huge.getvalue(), PictureTooLarge)):
        with pytest.raises(error) as here:
            normalise(data, max_pixels=MOST_PIXELS)
        with pytest.raises(error) as there:
            decoder.normalise(data)
        assert (there.value.detail, there.value.param) == (here.value.detail, here.value.param)


def test_one_that_takes_too_long_is_given_up_and_the_next_is_decoded(
    make_decoder: Callable[..., Decoder], small: bytes, large: bytes
) -> None:
    decoder = make_decoder(patience=timedelta(seconds=0.5))
    with pytest.raises(PictureUnreadable, match=r"not decoded within 0\.5 s"):
        decoder.normalise(large)
    assert decoder.normalise(small).width == 32


def test_one_that_takes_too_much_memory_is_refused_and_the_next_is_decoded(
    make_decoder: Callable[..., Decoder], small: bytes, large: bytes
) -> None:
    decoder = make_decoder(memory_bytes=200 * 1024**2)
    with pytest.raises(PictureUnreadable):
        decoder.normalise(large)
    assert decoder.normalise(small).width == 32


def test_one_that_takes_its_process_with_it_is_refused_and_the_next_is_decoded(
    make_decoder: Callable[..., Decoder], small: bytes, large: bytes
) -> None:
    decoder = make_decoder()
    decoder.normalise(small)
    errors: list[Exception] = []

    def decode() -> None:
        try:
            decoder.normalise(large)
        except PictureUnreadable as error:
            errors.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    until(lambda: any(held_bytes(process) > 100 * 1024**2 for process in decoding_processes()))
    for process in decoding_processes():
        with suppress(psutil.NoSuchProcess):  # the pool ends the others when it sees that one is gone
            process.kill()
    thread.join()
    assert len(errors) == 1
    assert decoder.normalise(small).width == 32
