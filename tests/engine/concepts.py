"""Concepts that nobody learned, for tests and measurements to which their numbers do not matter."""

from __future__ import annotations

from typing import Any

import torch

from workers.engine.base_model import BaseModel
from workers.engine.perfusion.concept import Concept, ConceptFile


def random_concept(base: BaseModel, seed: int, *, superclass: str = "cat", keys: bool = False) -> Concept:
    """A concept that does something visible: random outputs, a target along a random direction of encodings."""
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> torch.Tensor:
        return torch.randn(width, generator=generator)

    width = base.text.width
    values, target, embedding = draw(base.projections.total_width), draw(width), draw(width) * 0.1
    s = draw(width)
    learned_keys = draw(base.projections.total_width) if keys else None
    first, *others = embedding.split(base.text.widths)
    return Concept(values, target, first, s, superclass, learned_keys, others[0] if others else None)


def concept_file(base: BaseModel, concept: Concept | None = None, **said: Any) -> ConceptFile:
    """A concept as a training on this model would save it; ``said`` is what else the file says."""
    return ConceptFile(
        concept=concept or random_concept(base, 1, superclass="teddy bear"),
        base_model=base.name,
        encoder_fingerprint=base.fingerprint,
        covariance_sha256=base.covariance_sha256,
        layer_widths=base.projections.widths,
        **said,
    )
