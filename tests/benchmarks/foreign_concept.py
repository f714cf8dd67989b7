"""A concept of another text encoder, offered to a base model as a worker would offer it: from its file."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch

from workers.engine.base_model import BaseModel
from workers.engine.errors import ConceptBaseMismatch
from workers.engine.perfusion.concept import Concept, ConceptFile
from workers.engine.text import TextEncoder, Tower


def is_refused(base: BaseModel) -> bool:
    """Say whether the model takes a concept of its own encoder and refuses one whose encoder differs in one weight."""
    model = copy.deepcopy(base.text.towers[0].model)
    model.get_input_embeddings().weight.data[0, 0] += 1e-3
    other = TextEncoder(Tower(base.text.tokenizer, model))
    return _is_taken(base, base.fingerprint) and not _is_taken(base, other.fingerprint())


def _is_taken(base: BaseModel, encoder_fingerprint: str) -> bool:
    target, embedding, superclass = torch.ones(3, base.text.width)
    file = ConceptFile(
        concept=Concept(torch.ones(base.projections.total_width), target, embedding, superclass, "cat"),
        base_model=base.name,
        encoder_fingerprint=encoder_fingerprint,
        covariance_sha256=base.covariance_sha256,
        layer_widths=base.projections.widths,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "concept.safetensors"
        file.save(path)
        try:
            base.adopt(ConceptFile.load(path))
        except ConceptBaseMismatch:
            return False
    return True
