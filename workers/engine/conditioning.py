"""The one edit path: prompts and concepts become the keys and values of every cross-attention layer.

Training differentiates through it, the 50-step reference and one-step students are served by it, and a batch may mix
any concepts of any tenants, since every sample is edited with its own. The U-Net never learns that a concept was
involved.

Key lock, per concept of a prompt (perfusion/edit.py has the equations):
    local   the keys are edited like the values, towards o*_K = W_K s
    global  the keys come from the prompt with the superclass word in the concept's place, at all positions
    trained the keys are edited like the values, towards o*_K as it was learned with them

The unconditional branch of guidance is a prompt without concepts and so is never edited. A closed gate still leaks
sigmoid(-beta/tau) o* into every token; kept out of the unconditional branch, that branch stays the base model's own,
the same numbers for every tenant, and guidance pushes away from the plain model and towards the concept.

Dimensions:  B prompts, N token positions, J most concepts of one prompt, D encoder width, O width of all layers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from workers.engine.added_conditions import AddedConditions
from workers.engine.attention import Conditioning, KeyValueProjections
from workers.engine.errors import (
    ConceptsTooSimilar,
    ConceptUnused,
    CovarianceMissing,
    PlaceholderAmbiguous,
    SettingsInvalid,
)
from workers.engine.perfusion.concept import Concept, KeyLock
from workers.engine.perfusion.covariance import Covariance
from workers.engine.perfusion.edit import apply_edit, edit_coefficients, target_cosines
from workers.engine.perfusion.tokens import TokenRow, align, placeholders, superclass_tokens, tokenize
from workers.engine.text import Reading, TextEncoder

# Two target inputs closer than this cannot be told apart in float32: the Gram matrix is singular to working precision.
_PARALLEL = 1 - 1e-5


@dataclass(frozen=True)
class ConceptUse:
    """A concept under the name that a prompt gives it, with the dial settings for this use."""

    name: str
    concept: Concept
    gate_bias: float
    gate_temperature: float
    key_lock: KeyLock = KeyLock.LOCAL


_Uses = tuple[ConceptUse, ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt and the concepts that its placeholders ``<name>`` stand for."""

    text: str
    concepts: tuple[ConceptUse, ...] = ()


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts after the text encoder, before the edit."""

    prompts: tuple[Prompt, ...]
    rows: tuple[TokenRow, ...]
    value_encodings: Tensor  # (B, N, D)
    key_encodings: Tensor  # (B, N, D); the same tensor where no prompt has a globally locked concept
    pooled: Tensor | None  # (B, P), where the base model is SDXL-shaped


class Conditioner:
    """Turns prompts into a `Conditioning` for one base model."""

    def __init__(
        self,
        text: TextEncoder,
        projections: KeyValueProjections,
        covariance: Covariance | None,
        *,
        native_size: int,
    ) -> None:
        """``native_size`` is the side, in pixels, of pictures whose size is not told."""
        self.text = text
        self.projections = projections
        self.covariance = covariance
        self._native = (native_size, native_size)

    def condition(self, prompts: Sequence[Prompt], size: tuple[int, int] | None = None) -> Conditioning:
        """Encode and project; raises for unknown placeholders, unused or parallel concepts and overlong prompts."""
        return self.project(self.encode(prompts), size)

    def encode(self, prompts: Sequence[Prompt]) -> EncodedPrompts:
        """Run the text encoder with each concept's embedding at its placeholder."""
        for prompt in prompts:
            self._check(prompt)
        rows = [self._row(prompt, set()) for prompt in prompts]
        reading = self._read_rows(prompts, rows)
        keys = self._key_encodings(prompts, rows, reading.encodings)
        return EncodedPrompts(tuple(prompts), tuple(rows), reading.encodings, keys, reading.pooled)

    def project(self, encoded: EncodedPrompts, size: tuple[int, int] | None = None) -> Conditioning:
        """Project to keys and values, and edit every sample with its own concepts.

        ``size`` is the pictures' (width, height) in pixels, the native one by default; SDXL-shaped models are told it.
        """
        plain = self.projections.project(encoded.key_encodings, encoded.value_encodings)
        uses = [prompt.concepts for prompt in encoded.prompts]
        value_outputs = _padded([[use.concept.value_outputs for use in sample] for sample in uses])  # (B, J, O)
        values = self._edit(plain.values, encoded.value_encodings, self.projections.values, uses, value_outputs)
        edited = [tuple(use for use in sample if use.key_lock is not KeyLock.GLOBAL) for sample in uses]
        key_outputs = _padded([[self._key_outputs(use) for use in sample] for sample in edited])  # (B, J, O)
        keys = self._edit(plain.keys, encoded.key_encodings, self.projections.keys, edited, key_outputs)
        added = None if encoded.pooled is None else AddedConditions.of(encoded.pooled, *(size or self._native))
        return Conditioning(keys, values, plain.widths, added)

    def _key_outputs(self, use: ConceptUse) -> Tensor:
        """Return o*_K (O,): as it was learned, or W_K s."""
        if use.key_lock is not KeyLock.TRAINED:
            return self.projections.keys @ use.concept.superclass_encoding
        if use.concept.key_outputs is None:
            raise SettingsInvalid(f"<{use.name}> was trained without keys of its own, so key lock 'trained' has none")
        return use.concept.key_outputs

    def _edit(
        self, projected: Tensor, encodings: Tensor, weight: Tensor, uses: Sequence[_Uses], outputs: Tensor | None
    ) -> Tensor:
        """Apply the gated rank-one edits of one projection; ``projected`` itself where there is nothing to apply."""
        targets = _padded([[use.concept.target_input for use in sample] for sample in uses])  # (B, J, D)
        if targets is None or outputs is None or self.covariance is None:
            return projected
        bias = _dial(projected, [[use.gate_bias for use in sample] for sample in uses])  # (B, J)
        temperature = _dial(projected, [[use.gate_temperature for use in sample] for sample in uses])  # (B, J)
        removal, gate = edit_coefficients(encodings, targets, self.covariance.inverse, bias, temperature)
        return apply_edit(projected, removal, gate, targets @ weight.T, outputs)  # (B, N, O)

    def _check(self, prompt: Prompt) -> None:
        if not prompt.concepts:
            return
        if self.covariance is None:
            raise CovarianceMissing("this base model has no covariance, so no concept can be used on it")
        if len({use.name for use in prompt.concepts}) < len(prompt.concepts):
            raise PlaceholderAmbiguous("two concepts of one prompt share a name")
        named = placeholders(prompt.text)
        for use in prompt.concepts:
            if use.name not in named:
                raise ConceptUnused(f"the prompt never names <{use.name}>")
        targets = torch.stack([use.concept.target_input for use in prompt.concepts])  # (J, D)
        cosines = target_cosines(targets, self.covariance.inverse)
        for one, other in combinations(range(len(targets)), 2):
            if float(cosines[one, other].abs()) >= _PARALLEL:
                names = f"<{prompt.concepts[one].name}> and <{prompt.concepts[other].name}>"
                raise ConceptsTooSimilar(f"{names} point the same way; they cannot be told apart in one prompt")

    def _row(self, prompt: Prompt, spelled_out: set[str]) -> TokenRow:
        stand_ins = {use.name: superclass_tokens(self.text, use.concept.superclass) for use in prompt.concepts}
        return tokenize(self.text, prompt.text, stand_ins, spelled_out)

    def _read_rows(self, prompts: Sequence[Prompt], rows: Sequence[TokenRow]) -> Reading:
        embeddings = {
            (index, position): use.concept.embeddings
            for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
            for use in prompt.concepts
            for position in row.at(use.name)
        }
        return self.text.read([row.ids for row in rows], embeddings)

    def _key_encodings(self, prompts: Sequence[Prompt], rows: Sequence[TokenRow], encodings: Tensor) -> Tensor:
        """Return the encodings that keys are made of: those of the values, but for globally locked concepts."""
        spelled = [{use.name for use in prompt.concepts if use.key_lock is KeyLock.GLOBAL} for prompt in prompts]
        locked = [index for index, names in enumerate(spelled) if names]
        if not locked:
            return encodings
        key_prompts = [_without(prompts[index], spelled[index]) for index in locked]
        key_rows = [self._row(prompts[index], spelled[index]) for index in locked]
        key_encodings = self._read_rows(key_prompts, key_rows).encodings
        aligned = torch.tensor([align(rows[index], row) for index, row in zip(locked, key_rows, strict=True)])
        matched = key_encodings.gather(1, aligned.to(encodings.device)[..., None].expand_as(key_encodings))
        return encodings.index_copy(0, torch.tensor(locked, device=encodings.device), matched)


def _without(prompt: Prompt, names: set[str]) -> Prompt:
    """Return the prompt with only those concepts whose embedding still has a place in its key row."""
    return Prompt(prompt.text, tuple(use for use in prompt.concepts if use.name not in names))


def _padded(rows: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """Stack every sample's vectors to (B, J, width), zeros where one has fewer; None if none has any."""
    most = max(len(row) for row in rows)
    if most == 0:
        return None
    blank = torch.zeros_like(next(row[0] for row in rows if row), requires_grad=False)
    return torch.stack([torch.stack([*row, *[blank] * (most - len(row))]) for row in rows])


def _dial(like: Tensor, settings: Sequence[Sequence[float]]) -> Tensor:
    """Lay out a per-concept number as (B, J); the filling of 1 meets zero vectors only."""
    most = max(len(row) for row in settings)
    return like.new_tensor([[*row, *[1.0] * (most - len(row))] for row in settings])
