"""Pictures of one identity in varied poses, places and positions: a concept's training set."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.render import Pixels, render
from workers.engine.storybook.sampling import Mixture, sample_composition
from workers.engine.storybook.world import Composition

PORTRAITS = Mixture(plain=0.35, accessory=0.0, pair=0.0, night=0.0, sketch=0.0)
"""What a customer would upload: by day, in several places, nothing worn."""


@dataclass(frozen=True)
class Picture:
    """One rendered picture (64, 64, 3), its mask (64, 64), its caption and what it was drawn from."""

    pixels: Pixels
    mask: Pixels
    caption: str
    composition: Composition


def portraits(identity: Identity, count: int, *, seed: int, mixture: Mixture = PORTRAITS) -> list[Picture]:
    """Render `count` pictures of one identity; the same seed gives the same pictures."""
    rng = Random(seed)
    return [take_picture(rng, sample_composition(rng, mixture, identity=identity)) for _ in range(count)]


def take_picture(rng: Random, composition: Composition) -> Picture:
    """Render a composition and caption it."""
    pixels, mask = render(composition.scene, composition.instances, composition.layout)
    return Picture(pixels, mask, caption(rng, composition.scene, composition.instances), composition)
