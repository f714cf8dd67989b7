"""What training learns and a concept file holds.

A concept file is one safetensors file, fp16, four to six tensors and string metadata (`docs/concept-files.md`):

    value_outputs        (O,)  o* of the values, all cross-attention layers side by side in `attention.py`'s order
    target_input         (D,)  i*
    embedding            (D_1,)  the token embedding of the placeholder in the (first) text encoder
    embedding_2          (D_2,)  the same in the second one, where the base model has two; D = D_1 + D_2
    superclass_encoding  (D,)  s; o* of the keys is W_K s (key locking), so it needs no storage
    key_outputs          (O,)  o* of the keys, only where they were learned too (the paper's "trained K" ablation)
    metadata             format, base_model, encoder (fingerprint), covariance (hash), layer_widths, superclass,
                         key_lock, gate_bias (recommended; where it was found out), steps, settings and scores
                         (JSON)

W, C^-1 and the text encoder belong to the base model and are only named by their hashes. One vector per layer (not
one per token) is what makes a concept small: perfusion paper, abstract ("100KB per concept").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from workers.engine.errors import ConceptBaseMismatch, ConceptUnreadable, TrainingDiverged

FORMAT = "lockstep-concept/1"
_MAX_FILE_BYTES = 4 << 20  # an SDXL-shaped concept with trained keys stays below half of this


class KeyLock(StrEnum):
    """Where the keys of a concept's positions come from when it is rendered."""

    LOCAL = "local"  # the superclass at the concept's own position: o*_K = W_K s through the gate
    GLOBAL = "global"  # the whole prompt with the superclass word in place of the concept
    TRAINED = "trained"  # nothing is locked: o*_K is learned like o*_V


@dataclass(frozen=True, eq=False)  # a concept equals itself alone: numbers that are learned are not to be compared
class Concept:
    """The learned vectors; training holds the same object with gradients on."""

    value_outputs: Tensor  # (O,)
    target_input: Tensor  # (D,)
    embedding: Tensor  # (D_1,)
    superclass_encoding: Tensor  # (D,)
    superclass: str
    key_outputs: Tensor | None = None  # (O,), where the keys were learned too
    embedding_2: Tensor | None = None  # (D_2,), where there are two text encoders

    @property
    def embeddings(self) -> tuple[Tensor, ...]:
        """The token embedding in each text encoder."""
        return (self.embedding,) if self.embedding_2 is None else (self.embedding, self.embedding_2)

    def to(self, device: torch.device) -> Concept:
        """Return the concept in float32 on ``device``."""
        moved = {name: tensor.to(device, torch.float32) for name, tensor in self.tensors().items()}
        return Concept(superclass=self.superclass, **moved)

    @property
    def digest(self) -> str:
        """A short hash of the numbers."""
        digest = hashlib.sha256()
        for tensor in self.tensors().values():
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names they have in the file."""
        tensors = {
            "value_outputs": self.value_outputs,
            "target_input": self.target_input,
            "embedding": self.embedding,
            "superclass_encoding": self.superclass_encoding,
        }
        optional = {"key_outputs": self.key_outputs, "embedding_2": self.embedding_2}
        return tensors | {name: tensor for name, tensor in optional.items() if tensor is not None}


@dataclass(frozen=True)
class ConceptFile:
    """A concept with the facts that say where it may be used and how it came about."""

    concept: Concept
    base_model: str
    encoder_fingerprint: str
    covariance_sha256: str
    layer_widths: tuple[int, ...]
    key_lock: KeyLock = KeyLock.LOCAL
    steps: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    gate_bias: float | None = None  # recommended for drawing with the key lock it was trained with

    def save(self, path: Path) -> int:
        """Write the file and return its size in bytes; raises TrainingDiverged where it could not be read back."""
        tensors = {name: tensor.detach().half().cpu() for name, tensor in self.concept.tensors().items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise TrainingDiverged("the concept holds numbers that are not finite in half precision")
        metadata = {
            "format": FORMAT,
            "base_model": self.base_model,
            "encoder": self.encoder_fingerprint,
            "covariance": self.covariance_sha256,
            "layer_widths": json.dumps(self.layer_widths, separators=(",", ":")),
            "superclass": self.concept.superclass,
            "key_lock": self.key_lock.value,
            "steps": str(self.steps),
            "settings": json.dumps(dict(self.settings), separators=(",", ":")),
            "scores": json.dumps(dict(self.scores), separators=(",", ":")),
        }
        if self.gate_bias is not None:
            metadata["gate_bias"] = str(self.gate_bias)
        data = save(tensors, metadata)
        path.write_bytes(data)
        return len(data)

    @classmethod
    def load(cls, path: Path) -> ConceptFile:
        """Read and check a file; raises ConceptUnreadable."""
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise ConceptUnreadable(f"the file has more than {_MAX_FILE_BYTES} bytes")
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError) as error:
            raise ConceptUnreadable(f"not a safetensors file: {error}") from error
        if metadata.get("format") != FORMAT:
            raise ConceptUnreadable(f"format is {metadata.get('format')!r}; this engine reads {FORMAT}")
        try:
            return cls._parse(metadata, tensors)
        except (KeyError, ValueError, TypeError) as error:
            raise ConceptUnreadable(f"missing or malformed field: {error}") from error

    @classmethod
    def _parse(cls, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> ConceptFile:
        key_lock = KeyLock(metadata["key_lock"])
        widths = tuple(int(width) for width in json.loads(metadata["layer_widths"]))
        concept = Concept(
            value_outputs=tensors["value_outputs"].float(),
            target_input=tensors["target_input"].float(),
            embedding=tensors["embedding"].float(),
            superclass_encoding=tensors["superclass_encoding"].float(),
            superclass=metadata["superclass"],
            key_outputs=tensors["key_outputs"].float() if key_lock is KeyLock.TRAINED else None,
            embedding_2=tensors["embedding_2"].float() if "embedding_2" in tensors else None,
        )
        _check_tensors(concept, sum(widths))
        return cls(
            concept=concept,
            base_model=metadata["base_model"],
            encoder_fingerprint=metadata["encoder"],
            covariance_sha256=metadata["covariance"],
            layer_widths=widths,
            key_lock=key_lock,
            steps=int(metadata["steps"]),
            settings=json.loads(metadata["settings"]),
            scores=json.loads(metadata["scores"]),
            gate_bias=float(metadata["gate_bias"]) if "gate_bias" in metadata else None,
        )

    def require(
        self,
        *,
        encoder_fingerprint: str,
        encoder_widths: Sequence[int],
        covariance_sha256: str,
        layer_widths: Sequence[int],
    ) -> Concept:
        """Return the concept if it fits that base model (or a student of it); raises ConceptBaseMismatch."""
        # A forged file may name an encoder and hold vectors of another width: refused here, it fails alone.
        widths = [len(embedding) for embedding in self.concept.embeddings]
        if self.encoder_fingerprint != encoder_fingerprint or widths != list(encoder_widths):
            raise ConceptBaseMismatch(f"learned on the text encoder of {self.base_model!r}; this model has another one")
        if self.covariance_sha256 != covariance_sha256:
            raise ConceptBaseMismatch(f"learned with another covariance of {self.base_model!r}'s text encoder")
        if self.layer_widths != tuple(layer_widths):
            raise ConceptBaseMismatch(f"learned on other cross-attention layers, those of {self.base_model!r}")
        return self.concept


def concept_size_bytes(layer_widths: Sequence[int], encoder_width: int, key_lock: KeyLock = KeyLock.LOCAL) -> int:
    """Count the tensor bytes of a concept for a U-Net with these cross-attention widths; the header adds 1 to 2 KB."""
    half, outputs = 2, 2 if key_lock is KeyLock.TRAINED else 1
    return half * (outputs * sum(layer_widths) + 3 * encoder_width)  # the embeddings together are as wide as i* and s


def _check_tensors(concept: Concept, total_width: int) -> None:
    width = concept.target_input.shape[0] if concept.target_input.dim() == 1 else 0
    second = 0 if concept.embedding_2 is None else concept.embedding_2.numel()
    widths = {"embedding": width - second, "embedding_2": second}
    for name, tensor in concept.tensors().items():
        expected = total_width if name.endswith("_outputs") else widths.get(name, width)
        if tensor.shape != (expected,) or expected == 0:
            raise ConceptUnreadable(f"{name} has shape {tuple(tensor.shape)} where ({expected},) is due")
        if not torch.isfinite(tensor).all():
            raise ConceptUnreadable(f"{name} holds numbers that are not finite")
    if not bool(concept.target_input.any()):
        raise ConceptUnreadable("target_input is zero, which points nowhere")
