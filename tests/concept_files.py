"""Concept files for tests that know no engine: of the right form, with zeros for numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from core.catalog.facts import ConceptSpace

SPACE = ConceptSpace(encoder="e" * 64, covariance="c" * 64, layer_widths=(8, 16))
WIDTH = 4


def tensor_shapes(space: ConceptSpace = SPACE) -> dict[str, list[int]]:
    vector, outputs = [WIDTH], [sum(space.layer_widths)]
    return {"value_outputs": outputs, "target_input": vector, "embedding": vector, "superclass_encoding": vector}


def concept_file(
    space: ConceptSpace = SPACE,
    *,
    shapes: Mapping[str, list[int]] | None = None,
    dtype: str = "float16",
    **metadata: Any,
) -> bytes:
    """The bytes of a concept file; ``metadata`` replaces fields of it, and None leaves one out."""
    said = {
        "format": "lockstep-concept/1",
        "base_model": "storybook",
        "encoder": space.encoder,
        "covariance": space.covariance,
        "layer_widths": json.dumps(space.layer_widths),
        "superclass": "cat",
        "key_lock": "local",
        "steps": "400",
        "settings": "{}",
        "scores": '{"loss":0.25}',
    } | metadata
    tensors = {name: np.zeros(shape, dtype) for name, shape in (shapes or tensor_shapes(space)).items()}
    return save(tensors, {name: text for name, text in said.items() if text is not None})
