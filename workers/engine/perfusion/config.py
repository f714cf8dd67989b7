"""How a concept is learned: the paper's values as defaults, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from workers.engine.perfusion.concept import KeyLock
from workers.engine.settings import TrainingSettings, require

# As public reimplementations use them (after ChenDarYen/Key-Locked-Rank-One-Editing); the paper's own list is unknown.
PHOTO_TEMPLATES = (
    "a photo of a {}",
    "a good photo of a {}",
    "the photo of a {}",
    "a good photo of the {}",
    "image of a {}",
    "image of the {}",
    "A photograph of {}",
    "A {} shown in a photo",
    "A photo of {}",
)


@dataclass(frozen=True)
class PerfusionConfig(TrainingSettings):
    """Training settings. Page and equation numbers are those of arXiv 2305.01644."""

    steps: int = 400  # as public reimplementations report from the paper, which checkpoints every 25
    batch_size: int = 16  # likewise
    value_lr: float = 0.03  # for o* of the values
    embedding_lr: float = 0.006  # for the concept's token embedding
    gate_bias: float = 0.75  # the ablation on p. 9 prefers a high bias while training
    gate_temperature: float = 0.1
    target_input_decay: float = 0.99  # i* <- decay i* + (1 - decay) * the batch's mean encoding
    key_lock: str = "local"  # where the keys come from while the values are learned (`concept.KeyLock`)
    flip: bool = True  # with probability 1/2; off for things that have a left and a right
    masked: bool = True  # weigh the loss by where the superclass word looks (zero-shot masking, p. 9)
    templates: tuple[str, ...] = PHOTO_TEMPLATES
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the bound in the message."""
        require(1 <= self.steps <= 10_000, "steps must be from 1 to 10000")
        require(1 <= self.batch_size <= 64, "batch_size must be from 1 to 64")
        require(0 < self.value_lr <= 1, "value_lr must be above 0 and at most 1")
        require(0 <= self.embedding_lr <= 1, "embedding_lr must be from 0 to 1")
        require(0 <= self.gate_bias <= 1, "gate_bias must be from 0 to 1")
        require(0.01 <= self.gate_temperature <= 1, "gate_temperature must be from 0.01 to 1")
        require(0 <= self.target_input_decay < 1, "target_input_decay must be from 0 to below 1")
        require(self.key_lock in set(KeyLock), f"key_lock must be one of {', '.join(KeyLock)}")
        require(self.checkpoint_every >= 1, "checkpoint_every must be at least 1")
        single = all(template.count("{}") == 1 for template in self.templates)
        require(bool(self.templates) and single, "each of the templates must hold one {}")
