"""A model in memory with what was made for it: concepts that were opened, prompts that were conditioned.

Dimensions:  N token positions, O width of all cross-attention layers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Final

import torch

from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.byte_cache import ByteCache
from workers.engine.compiling import compiled
from workers.engine.conditioning import Prompt
from workers.engine.perfusion.concept import Concept, ConceptFile, KeyLock

_CONDITIONING_BYTES: Final = 256 << 20  # some thirty prompts of Stable Diffusion 1.5 in float32, twice that in bf16
_CONCEPT_BYTES: Final = 64 << 20  # five hundred concepts of SDXL's shape, in float32
_ROWS: Final = {"cpu": 4, "cuda": 8}
"""Prompts that are conditioned together, always as many: on a CPU every row costs, on a GPU every call.

Two would leave a prompt's place among them in its last bit.
"""

Size = tuple[int, int]
_Asked = tuple[Prompt, Size | None]
_FileVersion = tuple[str, int, int]


@dataclass(frozen=True)
class WarmModel:
    """A model and its caches, which go when it goes.

    What a prompt is conditioned to does not depend on what it is conditioned beside, to the bit: the number of rows,
    which picks the kernels, is always the same, and so each row is computed alike.
    """

    base: BaseModel
    backend: str | None = None  # of torch.compile; None draws uncompiled
    _concepts: ByteCache[_FileVersion, Concept] = field(
        default_factory=lambda: ByteCache(most_bytes=_CONCEPT_BYTES, size_of=_concept_bytes)
    )
    _conditionings: ByteCache[_Asked, Conditioning] = field(
        default_factory=lambda: ByteCache(most_bytes=_CONDITIONING_BYTES, size_of=_conditioning_bytes)
    )
    fits: dict[Size, int] = field(default_factory=dict)
    """The most pictures of a size that memory was seen to hold at once, where it did not hold more."""

    @cached_property
    def drawing(self) -> BaseModel:
        """The model as it draws: compiled, if it is to be; learning from it goes on with the plain one."""
        if self.backend is None:
            return self.base
        with torch.inference_mode(mode=False):  # whoever asks first: others learn from the same weights
            return compiled(self.base, self.backend)

    @property
    def fills_up(self) -> bool:
        """Whether batches are filled up to a power of two: few sizes to compile for, and on a GPU no dearer."""
        return self.backend is not None or self.base.device.type == "cuda"

    def concept(self, path: Path) -> Concept:
        """Return the concept in a file, opened once; raises ConceptUnreadable, ConceptBaseMismatch, OSError."""
        status = path.stat()
        version = (str(path), status.st_mtime_ns, status.st_size)
        concept = self._concepts.get(version)
        if concept is None:
            concept = self.base.adopt(ConceptFile.load(path))
            self._concepts.put(version, concept)
        return concept

    def condition(self, prompts: Sequence[Prompt], size: Size) -> list[Conditioning]:
        """Return one conditioning (of one sample, in the U-Net's precision) for each prompt.

        ``size`` is the pictures' (width, height) in pixels. Raises the PermanentError of the first prompt that cannot
        be conditioned; ask for each alone to learn which can.
        """
        asked = [(prompt, self._told(size)) for prompt in prompts]
        found = {key: kept for key in asked if (kept := self._conditionings.get(key)) is not None}
        # No prompt is padded with another's concepts: those of as many concepts and key rows go together.
        missing = sorted(dict.fromkeys(key for key in asked if key not in found), key=_kind)
        for _, alike in groupby(missing, _kind):
            keys = list(alike)
            for start in range(0, len(keys), self._rows):
                chunk = keys[start : start + self._rows]
                for key, made in zip(chunk, self._make([prompt for prompt, _ in chunk], size), strict=True):
                    self._conditionings.put(key, made)
                    found[key] = made
        return [found[key] for key in asked]

    @property
    def _rows(self) -> int:
        return _ROWS[self.base.device.type]

    def _told(self, size: Size) -> Size | None:
        """The size, where the model is told it: elsewhere one conditioning serves them all."""
        return size if self.base.denoiser.unet.config.addition_embed_type == "text_time" else None

    @torch.no_grad()
    def _make(self, prompts: list[Prompt], size: Size) -> list[Conditioning]:
        filled_up = prompts + [prompts[-1]] * (self._rows - len(prompts))
        together = self.base.conditioner.condition(filled_up, size).to(self.base.denoiser.dtype)
        places = torch.arange(len(prompts), device=self.base.device)
        return [together.select(place[None]) for place in places]  # copies: none keeps the others' memory


def _kind(asked: _Asked) -> tuple[int, bool]:
    uses = asked[0].concepts
    return len(uses), any(use.key_lock is KeyLock.GLOBAL for use in uses)


def _concept_bytes(concept: Concept) -> int:
    return sum(tensor.nbytes for tensor in concept.tensors().values())


def _conditioning_bytes(conditioning: Conditioning) -> int:
    return conditioning.keys.nbytes + conditioning.values.nbytes
