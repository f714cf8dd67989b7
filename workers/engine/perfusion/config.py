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

# The thing in several places, styles and companies; which ones the paper validates with is unknown.
VALIDATION_PROMPTS = (
    "a photo of a {}",
    "a {} on the beach",
    "a {} in the snow",
    "a {} at night",
    "a watercolor painting of a {}",
    "a pencil sketch of a {}",
    "a {} next to a dog",
    "a {} and a chair",
)


@dataclass(frozen=True)
class PerfusionConfig(TrainingSettings):
    """Training settings. Page and equation numbers are those of arXiv 2305.01644."""

    steps: int = 400  # as public reimplementations report from the paper, which checkpoints every 25
    batch_size: int = 16  # likewise
    value_lr: float = 0.03  # for o* of the values
    embedding_lr: float = 0.006  # for the concept's token embedding
    decay_share: float = 0.0  # of the steps, the last, over which both rates fall to nothing
    gate_bias: float = 0.75  # the ablation on p. 9 prefers a high bias while training
    gate_temperature: float = 0.1
    target_input_decay: float = 0.99  # i* <- decay i* + (1 - decay) * the batch's mean encoding
    key_lock: str = "local"  # where the keys come from while the values are learned (`concept.KeyLock`)
    flip: bool = True  # with probability 1/2; off for things that have a left and a right
    masked: bool = True  # weigh the loss by where the superclass word looks (zero-shot masking, p. 9)
    templates: tuple[str, ...] = PHOTO_TEMPLATES
    checkpoint_every: int = 25
    validate_every: int = 25  # the paper's interval; the last step is validated in any case
    validation_prompts: tuple[str, ...] = VALIDATION_PROMPTS
    patience: int = 6  # the training ends when so many validations in a row bring nothing better
    gate_biases: tuple[float, ...] = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75)  # of these the best is recommended

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the bound in the message."""
        require(1 <= self.steps <= 10_000, "steps must be from 1 to 10000")
        require(1 <= self.batch_size <= 64, "batch_size must be from 1 to 64")
        require(0 < self.value_lr <= 1, "value_lr must be above 0 and at most 1")
        require(0 <= self.embedding_lr <= 1, "embedding_lr must be from 0 to 1")
        require(0 <= self.decay_share <= 1, "decay_share must be from 0 to 1")
        require(0 <= self.gate_bias <= 1, "gate_bias must be from 0 to 1")
        require(0.01 <= self.gate_temperature <= 1, "gate_temperature must be from 0.01 to 1")
        require(0 <= self.target_input_decay < 1, "target_input_decay must be from 0 to below 1")
        require(self.key_lock in set(KeyLock), f"key_lock must be one of {', '.join(KeyLock)}")
        require(self.checkpoint_every >= 1, "checkpoint_every must be at least 1")
        require(self.validate_every >= 1, "validate_every must be at least 1")
        require(self.patience >= 1, "patience must be at least 1")
        require(len(self.validation_prompts) <= 64, "validation_prompts must be at most 64")
        for name in ("templates", "validation_prompts"):
            texts = getattr(self, name)
            single = all(text.count("{}") == 1 for text in texts)
            require(bool(texts) and single, f"each of the {name} must hold one {{}}")
        require(1 <= len(self.gate_biases) <= 16, "gate_biases must be from 1 to 16 numbers")
        require(all(0 <= bias <= 1 for bias in self.gate_biases), "gate_biases must be from 0 to 1")
