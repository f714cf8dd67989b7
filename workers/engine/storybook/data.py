"""The rendered cache: shards of pictures, masks and captions that training stages read through memory maps.

A shard is a folder `{set}-{number}` with `pixels.npy` (N, 64, 64, 3), `masks.npy` (N, 16, 16) and `captions.json`
(N lists). Picture `i` of a set depends on nothing but `i`, so shards may be rendered in any order, by any number of
processes, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import split_rng
from workers.engine.storybook.render import render
from workers.engine.storybook.sampling import OUTDOORS, STUDIO, Mixture, sample_composition
from workers.engine.storybook.world import SIZE

LATENT: Final = 16
"""Side of the latent grid, and so of the stored masks."""

SETS: Final[dict[str, Mixture]] = {"studio": STUDIO, "outdoors": OUTDOORS}
_FIRST_PICTURE: Final = {"studio": 0, "outdoors": 1 << 36}
_CAPTIONS_EACH: Final = 3


@dataclass(frozen=True)
class Shard:
    """One folder of the cache, memory-mapped."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    captions: list[list[str]]


def render_cache(folder: Path, *, shards: dict[str, int], shard_size: int, workers: int) -> int:
    """Render the shards that are missing, and return how many those were."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(name, number) for name, count in shards.items() for number in range(count)]
    missing = [(name, number) for name, number in wanted if not (folder / _shard_name(name, number)).exists()]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(_render_shard, folder, name, number, shard_size) for name, number in missing]
        for future in futures:
            future.result()
    return len(missing)


def load_set(folder: Path, name: str) -> list[Shard]:
    """Open every shard of a set.

    Raises FileNotFoundError if none has been rendered.
    """
    shards = [_load_shard(path) for path in sorted(folder.glob(f"{name}-*")) if path.is_dir()]
    if not shards:
        raise FileNotFoundError(f"no {name} shards in {folder}: run the data stage first")
    return shards


def shrink_mask(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average a (64, 64) mask down to the latent grid."""
    cell = SIZE // LATENT
    cells: NDArray[np.uint8] = mask.reshape(LATENT, cell, LATENT, cell).mean((1, 3)).astype(np.uint8)
    return cells


def _render_shard(folder: Path, name: str, number: int, size: int) -> None:
    pixels = np.empty((size, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((size, LATENT, LATENT), np.uint8)
    captions: list[Sequence[str]] = []
    for k in range(size):
        rng = split_rng("train", _FIRST_PICTURE[name] + number * size + k)
        composition = sample_composition(rng, SETS[name])
        pixels[k], mask = render(composition.scene, composition.instances, composition.layout)
        masks[k] = shrink_mask(mask)
        captions.append([caption(rng, composition.scene, composition.instances) for _ in range(_CAPTIONS_EACH)])
    draft = folder / f".{_shard_name(name, number)}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    np.save(draft / "pixels.npy", pixels)
    np.save(draft / "masks.npy", masks)
    (draft / "captions.json").write_text(json.dumps(captions))
    draft.rename(folder / _shard_name(name, number))


def _load_shard(folder: Path) -> Shard:
    return Shard(
        pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        captions=json.loads((folder / "captions.json").read_text()),
    )


def _shard_name(name: str, number: int) -> str:
    return f"{name}-{number:04d}"
