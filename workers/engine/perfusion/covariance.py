"""The metric in which concepts are told apart: the inverse of the text encodings' second moment.

Source: Perfusion, appendix C (uncentred covariance); Meng et al. 2022 (ROME), section 3.1.
Symbols:  e an encoding (D,) of one token of one caption; C = mean of e e' over tokens (D, D); M = C^-1

Every non-padding token counts, begin and end of text among them; padding would drown them, as it fills most of a row.
The gate's alignment does not depend on the scale of C, but it does on which tokens are counted: gate biases tuned on
one counting rule mean something else on another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workers.engine.errors import ModelUnreadable
from workers.engine.text import TextEncoder

_CAPTIONS_AT_ONCE = 256


@dataclass(frozen=True)
class Covariance:
    """M (D, D) in float32, with how many tokens it was measured on."""

    inverse: Tensor
    tokens: int
    ridge: float

    @property
    def sha256(self) -> str:
        """The hash that concept files carry: concepts learned in different metrics cannot be mixed."""
        return hashlib.sha256(self.inverse.cpu().contiguous().numpy().tobytes()).hexdigest()

    def to(self, device: torch.device) -> Covariance:
        """Return the same metric on another device."""
        return Covariance(self.inverse.to(device), self.tokens, self.ridge)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        facts = {"tokens": str(self.tokens), "ridge": repr(self.ridge), "sha256": self.sha256}
        save_file({"inverse_covariance": self.inverse.cpu().contiguous()}, path, metadata=facts)

    @classmethod
    def load(cls, path: Path) -> Covariance:
        """Read a file written by `save`; raises ModelUnreadable for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                inverse: Tensor = file.get_tensor("inverse_covariance")
                facts = file.metadata() or {}
            covariance = cls(inverse.float(), int(facts["tokens"]), float(facts["ridge"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelUnreadable(f"{path.name} is not a covariance file: {error}") from error
        square = inverse.dim() == 2 and inverse.shape[0] == inverse.shape[1]
        if not square or not torch.isfinite(inverse).all() or covariance.sha256 != facts.get("sha256"):
            raise ModelUnreadable(f"{path.name} is damaged")
        return covariance


@torch.no_grad()
def compute_covariance(text: TextEncoder, captions: Sequence[str], *, ridge: float = 1e-4) -> Covariance:
    """Measure C on captions and invert it.

    Sums run in float64. ``ridge`` is relative: it adds that share of the mean eigenvalue to every eigenvalue, so that
    directions no caption uses stay finite. A caption longer than the encoder reads raises PromptTooLong.
    """
    second_moment = torch.zeros(text.width, text.width, dtype=torch.float64)  # (D, D)
    tokens = 0
    for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
        pieces = [text.tokens(caption) for caption in captions[start : start + _CAPTIONS_AT_ONCE]]
        encodings = text.encode([text.row(piece) for piece in pieces]).double().cpu()  # (B, N, D)
        used = torch.tensor([len(piece) + 2 for piece in pieces])  # (B,), with begin and end
        counted = encodings[torch.arange(text.length) < used[:, None]]  # (tokens, D)
        second_moment += counted.T @ counted
        tokens += len(counted)
    covariance = invert(second_moment / tokens, ridge=ridge)
    return Covariance(covariance, tokens, ridge)


def invert(second_moment: Tensor, *, ridge: float) -> Tensor:
    """Return M in float32 from C (D, D) in float64; raises ValueError where C plus ridge is not positive definite."""
    symmetric = (second_moment + second_moment.T) / 2
    width = symmetric.shape[0]
    symmetric = symmetric + ridge * symmetric.trace() / width * torch.eye(width, dtype=symmetric.dtype)
    factor, failed = torch.linalg.cholesky_ex(symmetric)
    if failed:
        raise ValueError("the encodings' second moment is not positive definite: more captions or a larger ridge")
    return torch.cholesky_inverse(factor).float()  # (D, D)
