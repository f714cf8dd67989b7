"""Identities: the particular creature, thing or accessory that a caption can classify but never fully describe.

A caption names an identity's class, colour and pattern. The exact shade, the second colour, the eyes and eight
shape parameters stay unsaid: they are what a concept has to learn. Pose, scene, style and what is worn belong to
the picture, not to the identity (`world.py`); what is worn has an identity of its own.

Of every class one colour is kept from all training pictures, by rule: whether a model composes what it knows can only
be seen on pairs it has never met.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from workers.engine.storybook.palette import COLOURS, Rgb, accent, shade

CLASSES: Final = (
    "cat",
    "dog",
    "rabbit",
    "bird",
    "fish",
    "robot",
    "teapot",
    "house",
    "car",
    "boat",
    "mug",
    "chair",
)
"""Creatures and things, which may wear accessories."""

ACCESSORIES: Final = ("sunglasses", "hat", "scarf")
"""What is worn, or stands alone."""

KINDS: Final = CLASSES + ACCESSORIES
COLOUR_NAMES: Final = tuple(COLOURS)
PATTERNS: Final = ("plain", "striped", "spotted")
SHAPE_PARAMETERS: Final = 8

_PATTERN_WEIGHTS: Final = (0.5, 0.25, 0.25)
_EYES: Final[tuple[Rgb, ...]] = ((80, 160, 70), (70, 130, 210), (230, 180, 50), (110, 70, 40), (40, 40, 46))

Split = Literal["train", "judge", "held-out"]
_SPLIT_OFFSETS: Final[dict[Split, int]] = {"train": 0, "judge": 1 << 40, "held-out": 2 << 40}


@dataclass(frozen=True)
class Identity:
    """One individual: what captions say of it, and what they cannot.

    `shape` holds eight parameters in [0, 1]; each class reads them as its own proportions (ears, tail, sails...).
    """

    cls: str
    colour: str
    pattern: str
    shade: Rgb
    second: Rgb
    eye: Rgb
    phase: float
    shape: tuple[float, ...]


def split_rng(split: Split, index: int) -> Random:
    """Return the generator of picture or identity `index` of a split; no two splits ever share a seed."""
    if not 0 <= index < 1 << 40:
        raise ValueError(f"index out of range: {index}")
    return Random(_SPLIT_OFFSETS[split] + index)


def is_unseen(cls: str, colour: str) -> bool:
    """Say whether training pictures never show this class in this colour."""
    return (3 * KINDS.index(cls) + COLOUR_NAMES.index(colour)) % len(COLOUR_NAMES) == 0


def sample_identity(
    rng: Random, *, cls: str | None = None, colour: str | None = None, pattern: str | None = None
) -> Identity:
    """Draw an individual, with any of the nameable attributes fixed; a class that is drawn is no accessory."""
    cls, colour = cls or rng.choice(CLASSES), colour or rng.choice(COLOUR_NAMES)
    drawn = rng.choices(PATTERNS, _PATTERN_WEIGHTS)[0]
    own = shade(rng, colour)
    return Identity(
        cls=cls,
        colour=colour,
        pattern="plain" if cls == "sunglasses" else pattern or drawn,
        shade=own,
        second=accent(rng, beside=own),
        eye=rng.choice(_EYES),
        phase=rng.random(),
        shape=tuple(rng.random() for _ in range(SHAPE_PARAMETERS)),
    )
