"""Uploads damaged pictures and looks at every answer, and at how much memory decoding took.

    python -m tests.fuzz.pictures --count 5000 --seed 1 [--json FILE]

Real PNG, JPEG, WebP and GIF files with bits turned, ends cut off, headers that lie, parts repeated; bombs that are
small and decode to much; files that are something else. Exits with 1 when an answer was neither a file nor a refusal of
the picture.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from PIL import Image, ImageDraw

from core.config import Settings
from tests.benchmarks.report import Report, print_table
from tests.decoders import decoding_processes, held_bytes
from tests.serving import Deployment, Tenant, serving
from tests.stack import run_servers

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_REFUSALS = frozenset({"picture-unreadable", "picture-too-large", "too-large"})
_MOST_PIXELS = 4_000_000  # small, so that what is refused by its size is met often
_MEBIBYTE = 1024**2


@dataclass
class Outcome:
    """What was answered, and what decoding took."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind of damage, and `kept` or the code
    wrong: list[str] = field(default_factory=list)
    decoders_peak: int = 0  # bytes resident, of any process that decodes
    grown: int = 0  # bytes by which the API's process grew


def cat(lots: random.Random, format: str) -> bytes:  # noqa: A002 - Pillow's name for it
    """A real picture."""
    size = lots.randrange(8, 200), lots.randrange(8, 200)
    picture = Image.new(lots.choice(["RGB", "RGBA", "L", "P"]), size)
    ImageDraw.Draw(picture).ellipse([2, 2, size[0] - 2, size[1] - 2], fill=lots.randrange(256))
    encoded = io.BytesIO()
    more = [Image.new(picture.mode, size, k) for k in range(lots.randrange(4))] if format in {"GIF", "WEBP"} else []
    extra = {"save_all": True, "append_images": more} if more else {}
    (picture.convert("RGB") if format == "JPEG" else picture).save(encoded, format, **extra)
    return encoded.getvalue()


def turn_bits(lots: random.Random) -> bytes:
    """Some bits are others."""
    data = bytearray(cat(lots, lots.choice(_FORMATS)))
    for _ in range(lots.randrange(1, 30)):
        data[lots.randrange(len(data))] ^= 1 << lots.randrange(8)
    return bytes(data)


def cut_off(lots: random.Random) -> bytes:
    """The end is missing, or there is more of it."""
    data = cat(lots, lots.choice(_FORMATS))
    return data[: lots.randrange(len(data))] + lots.randbytes(lots.choice([0, 0, 1000]))


def swap_parts(lots: random.Random) -> bytes:
    """Parts are missing, doubled, or of another file."""
    data, other = (cat(lots, lots.choice(_FORMATS)) for _ in range(2))
    first, last = sorted(lots.randrange(len(data)) for _ in range(2))
    return data[:first] + lots.choice([b"", data[first:last] * 2, other]) + data[last:]


def lie_about_size(lots: random.Random) -> bytes:
    """A PNG's header tells of another size than there are pixels, with a right checksum."""
    data = bytearray(cat(lots, "PNG"))
    sizes = [0, 1, 2000, 2**16, 2**31 - 1, 2**32 - 1]
    data[16:24] = struct.pack(">II", lots.choice(sizes), lots.choice(sizes))
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def bomb(lots: random.Random) -> bytes:
    """A few kilobytes that decode to as many pixels as are accepted, or to more."""
    side = lots.choice([1990, 2100, 6000])
    encoded = io.BytesIO()
    Image.new("1", (side, side)).save(encoded, lots.choice(["PNG", "GIF", "WEBP"]))
    return encoded.getvalue()


def many_frames(lots: random.Random) -> bytes:
    """An animation of hundreds of frames."""
    frames = [Image.new("P", (64, 64), k % 250) for k in range(lots.randrange(100, 400))]
    encoded = io.BytesIO()
    frames[0].save(encoded, "GIF", save_all=True, append_images=frames[1:])
    return encoded.getvalue()


def bloated_metadata(lots: random.Random) -> bytes:
    """A PNG with a compressed text that swells to many megabytes, or with a nonsensical EXIF part."""
    data = cat(lots, "PNG")
    swollen = b"zTXt", b"comment\0\0" + zlib.compress(b"\0" * lots.choice([1, 40]) * _MEBIBYTE)
    kind, body = lots.choice([swollen, (b"eXIf", lots.randbytes(300)), (b"iCCP", b"x\0\0" + lots.randbytes(300))])
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


def something_else(lots: random.Random) -> bytes:
    """No picture at all, or only the beginning of one."""
    begins = [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"GIF89a",
        b"<svg/>",
        b"%PDF-1.7",
    ]
    return lots.choice(begins) + lots.randbytes(lots.randrange(2000))


DAMAGES: tuple[tuple[Callable[[random.Random], bytes], int], ...] = (
    (turn_bits, 30),
    (cut_off, 20),
    (swap_parts, 20),
    (lie_about_size, 10),
    (something_else, 10),
    (bloated_metadata, 5),
    (many_frames, 3),
    (bomb, 2),
)


def fuzz(settings: Settings, *, count: int, seed: int) -> Outcome:
    """Upload so many, one after the other."""
    bounds = {"max_picture_pixels": _MOST_PIXELS, "requests_per_minute": 0, "tenant_max_bytes": 0}
    lots, outcome = random.Random(seed), Outcome()
    deployment = Deployment(settings.model_copy(update=bounds))
    try:
        with serving(deployment.settings) as url, Tenant(deployment, url, "acme").http as http:
            http.post("/v1/files", files={"file": cat(lots, "PNG")})
            before = psutil.Process().memory_info().rss
            with _watched(outcome):
                for _ in range(count):
                    (damage,) = lots.choices([one for one, _ in DAMAGES], [often for _, often in DAMAGES])
                    _upload(outcome, http, damage.__name__, damage(lots))
            outcome.grown = psutil.Process().memory_info().rss - before
    finally:
        deployment.close()
    return outcome


def _upload(outcome: Outcome, http: httpx.Client, damage: str, data: bytes) -> None:
    response = http.post("/v1/files", files={"file": ("cat.png", data)})
    answer = "kept" if response.status_code == 201 else str(response.json().get("code"))
    outcome.answers[damage, answer] += 1
    if response.status_code != 201 and answer not in _REFUSALS:
        outcome.wrong.append(f"{damage}: {response.status_code} {response.text[:300]}")


@contextmanager
def _watched(outcome: Outcome) -> Iterator[None]:
    """See how much memory the processes take that decode."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            held = [held_bytes(process) for process in decoding_processes()]
            outcome.decoders_peak = max([outcome.decoders_peak, *held])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Upload and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.pictures", description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and targets here")
    given = parser.parse_args()
    with run_servers() as servers:
        outcome = fuzz(servers.new_settings(), count=given.count, seed=given.seed)
    answers = sorted({answer for _, answer in outcome.answers})
    rows: list[tuple[str | int, ...]] = [
        (damage.__name__, *(outcome.answers[damage.__name__, answer] for answer in answers)) for damage, _ in DAMAGES
    ]
    print_table("Answers", ("damage", *answers), rows)
    for found in outcome.wrong:
        print(found)
    report = Report()
    report.add("pictures", outcome.answers.total())
    report.add("answered wrongly", len(outcome.wrong))
    report.add("MiB of the largest decoder", outcome.decoders_peak / _MEBIBYTE)
    report.add("MiB by which the API grew", outcome.grown / _MEBIBYTE)
    report.expect("pictures", ">=", given.count)
    report.expect("answered wrongly", "<=", 0)
    report.expect("MiB of the largest decoder", "<=", 512)
    report.expect("MiB by which the API grew", "<=", 128)
    report.finish(given.json)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
