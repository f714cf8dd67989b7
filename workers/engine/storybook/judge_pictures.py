"""What judges learn from and are measured on: renders with their labels, and renders of lookalikes.

Training pictures are of the "judge" split and show every combination, also those that the generator's training keeps
apart. They wait on disk in shards, rendered by any number of processes; an interrupted run goes on where it stopped.

Shapes:  an `attributes` shard holds `pixels.npy` (N, 64, 64, 3) and `targets.npy` (N, A), one column per attribute
         an `identity` shard holds `pixels.npy` (L, I, R, 64, 64, 3): R renders of each of I lookalikes, L times
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.storybook.identity import KINDS, Identity, Split, sample_identity, split_rng
from workers.engine.storybook.judges import Pictures
from workers.engine.storybook.render import render_picture
from workers.engine.storybook.sampling import ATTRIBUTES, OUTDOORS, STUDIO, Mixture, labels, sample_composition
from workers.engine.storybook.world import Composition

LOOKALIKES: Final = 10
"""As many as an identity is later picked from."""
RENDERS: Final = 4

NOT_SHOWN: Final = -1
"""The target of an attribute that a picture cannot show."""

_STUDIO: Final = replace(STUDIO, unseen=True)
_OUTDOORS: Final = replace(OUTDOORS, unseen=True)
_CROWDED: Final = Mixture(
    plain=0.2, accessory=0.6, alone=0.2, pair=0.7, trio=0.1, night=0.25, sketch=0.2, watercolor=0.2, unseen=True
)
_CYCLE: Final = (_STUDIO, _OUTDOORS, _CROWDED, _OUTDOORS)
"""Two pictures of the world as it is for each one of the studio and of what is hardest to read."""

SIGHTINGS: Final = Mixture(plain=0.3, accessory=0.35, night=0.2, watercolor=0.08, unseen=True)
"""How an identity is shown to its judge: alone, and never as a sketch, which has no colour to know it by."""

_FIRST_SIGHTING: Final = 1 << 34


@dataclass(frozen=True)
class JudgeShards:
    """How many shards of each kind there are to be, and how many pictures or groups each holds."""

    attributes: int
    identity: int
    pictures: int = 5000
    groups: int = 125


def render_judge_shards(folder: Path, wanted: JudgeShards, *, workers: int) -> int:
    """Render the shards that are missing, and return how many those were."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds: list[tuple[str, int, Callable[[Path, int], None]]] = [
        ("attributes", wanted.attributes, partial(_render_attributes, wanted.pictures)),
        ("identity", wanted.identity, partial(_render_lookalikes, wanted.groups)),
    ]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        futures = [
            pool.submit(_render_shard, folder / f"{name}-{number:04d}", render, number)
            for name, count, render in kinds
            for number in range(count)
            if not (folder / f"{name}-{number:04d}").exists()
        ]
        for future in futures:
            future.result()
    return len(futures)


def load_arrays(folder: Path, kind: str, name: str) -> list[NDArray[np.generic]]:
    """Open one array of every shard of a kind, memory-mapped.

    Raises FileNotFoundError if none has been rendered.
    """
    shards = sorted(folder.glob(f"{kind}-*"))
    if not shards:
        raise FileNotFoundError(f"no {kind} shards in {folder}: render the judges' pictures first")
    return [np.load(shard / f"{name}.npy", mmap_mode="r") for shard in shards]


def draw_compositions(compositions: Sequence[Composition]) -> Pictures:
    """Render compositions: (N, 64, 64, 3)."""
    return np.stack([render_picture(c.scene, c.instances, c.layout) for c in compositions])


def judged_compositions(split: Split, count: int, *, first: int = 0) -> list[Composition]:
    """Draw the contents of pictures to read attributes off."""
    return [sample_composition(split_rng(split, first + k), _CYCLE[k % len(_CYCLE)]) for k in range(count)]


def targets(composition: Composition) -> list[int]:
    """Return the index of each attribute's value, `NOT_SHOWN` for those that the picture cannot show."""
    said = labels(composition)
    return [values.index(said[name]) if name in said else NOT_SHOWN for name, values in ATTRIBUTES.items()]


def lookalikes(split: Split, index: int, count: int) -> list[Identity]:
    """Draw identities of one kind, colour and pattern: what captions cannot tell apart."""
    rng = split_rng(split, index)
    first = sample_identity(rng, cls=rng.choice(KINDS))
    rest = [sample_identity(rng, cls=first.cls, colour=first.colour, pattern=first.pattern) for _ in range(count - 1)]
    return [first, *rest]


def sightings(split: Split, index: int, identity: Identity, count: int) -> Pictures:
    """Render one identity in varied poses, places and accessories: (count, 64, 64, 3)."""
    rng = split_rng(split, index)
    return draw_compositions([sample_composition(rng, SIGHTINGS, identity=identity) for _ in range(count)])


def _render_shard(folder: Path, render: Callable[[Path, int], None], number: int) -> None:
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    render(draft, number)
    draft.rename(folder)


def _render_attributes(count: int, folder: Path, number: int) -> None:
    compositions = judged_compositions("judge", count, first=number * count)
    np.save(folder / "pixels.npy", draw_compositions(compositions))
    np.save(folder / "targets.npy", np.array([targets(composition) for composition in compositions], np.int8))


def _render_lookalikes(groups: int, folder: Path, number: int) -> None:
    parts = []
    for group in range(number * groups, (number + 1) * groups):
        faces = lookalikes("judge", group, LOOKALIKES)
        first = _FIRST_SIGHTING + group * LOOKALIKES
        parts.append(np.stack([sightings("judge", first + k, face, RENDERS) for k, face in enumerate(faces)]))
    np.save(folder / "pixels.npy", np.stack(parts))
