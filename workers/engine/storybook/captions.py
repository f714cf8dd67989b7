"""Captions: everything words can say of a picture, in the grammar that the text encoder knows."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from workers.engine.storybook.identity import Identity
from workers.engine.storybook.world import Instance, Scene

_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("on {background} background", "on a plain {colour} background"),
    "beach": ("on the beach", "at the beach"),
    "forest": ("in the forest", "in a forest"),
    "snow": ("in the snow", "in the snowy mountains"),
    "city": ("in the city", "on a city street"),
    "room": ("in a room", "in the living room"),
    "space": ("in space", "on the moon"),
}
_STYLED: Final[dict[str, tuple[str, ...]]] = {
    "cartoon": ("a picture of ", "a cartoon of "),
    "sketch": ("a pencil sketch of ", "a sketch of "),
    "watercolor": ("a watercolor of ", "a watercolor painting of "),
}


def with_article(words: str) -> str:
    """Put "a" or "an" before the words, unless they are a plural."""
    if words.endswith("sunglasses"):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def fullest_caption(identity: Identity) -> str:
    """Return all that words can say of an identity, such as "a spotted green cat"."""
    words = [] if identity.pattern == "plain" else [identity.pattern]
    return with_article(" ".join([*words, identity.colour, identity.cls]))


def place_phrase(rng: Random, scene: Scene) -> str:
    """Return where the picture is set, such as "in the snow at night"."""
    template = rng.choice(_PLACES[scene.place])
    words = template.format(background=with_article(scene.background), colour=scene.background)
    return f"{words} at night" if scene.night else words


def caption(rng: Random, scene: Scene, instances: Sequence[Instance], *, full: bool = False) -> str:
    """Describe a picture; `full` says all that can be said, otherwise some of it is left out at random."""
    things = rng.choice((" next to ", " and ")).join(_thing(rng, instance, full) for instance in instances)
    if full or rng.random() < (0.65 if scene.place == "plain" else 0.88):
        things = f"{things} {place_phrase(rng, scene)}"
    elif scene.night and rng.random() < 0.9:
        things = f"{things} at night"
    if scene.style == "cartoon" and (full or rng.random() < 0.7):
        return things
    return rng.choice(_STYLED[scene.style]) + things


def _thing(rng: Random, instance: Instance, full: bool) -> str:
    phrase = _described(rng, instance.identity, full)
    if instance.worn is None or not (full or rng.random() < 0.95):
        return phrase
    return f"{phrase} wearing {_described(rng, instance.worn, full)}"


def _described(rng: Random, identity: Identity, full: bool) -> str:
    words = []
    if identity.pattern != "plain" and (full or rng.random() < 0.85):
        words.append(identity.pattern)
    if full or rng.random() < 0.93:
        words.append(identity.colour)
    return with_article(" ".join([*words, identity.cls]))
