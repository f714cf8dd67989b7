"""What the demo is about: one particular creature, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.identity import Identity, sample_identity, split_rng

CONCEPT = "tom"
INPUTS = 5  # pictures to learn from
TAKES = 4  # pictures of each scene


@dataclass(frozen=True)
class Scene:
    """One prompt, with ``{it}`` where the creature is named; judged unless a picture cannot show who it is."""

    label: str
    prompt: str
    is_judged: bool = True


SCENES = (
    Scene("plain", "{it} on a white background"),
    Scene("beach", "{it} on the beach"),
    Scene("snow, hat", "{it} wearing a red hat in the snow"),
    Scene("forest", "{it} in the forest"),
    Scene("city, night", "{it} in the city at night"),
    Scene("sunglasses", "{it} wearing sunglasses on the beach"),
    Scene("sketch", "a pencil sketch of {it}", is_judged=False),  # it has no colours to know anyone by
)


@dataclass(frozen=True)
class Creature:
    """An individual of the storybook world, and how prompts name it."""

    identity: Identity

    @property
    def caption(self) -> str:
        """All that words can say of it; its shade, second colour, eyes and shape stay unsaid."""
        return fullest_caption(self.identity)

    def lookalikes(self, count: int) -> list[Identity]:
        """Other individuals of the same caption, none of which any network was trained on."""
        same = {"cls": self.identity.cls, "colour": self.identity.colour, "pattern": self.identity.pattern}
        return [sample_identity(split_rng("held-out", 1_000_000 + index), **same) for index in range(count)]


def cast(number: int) -> Creature:
    """The ``number``-th creature that the demo can be about: a spotted blue cat that no network has seen."""
    rng = split_rng("held-out", number)
    return Creature(sample_identity(rng, cls="cat", colour="blue", pattern="spotted"))
