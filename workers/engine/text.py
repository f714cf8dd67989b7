"""The text side of a base model: prompts become token rows, token rows become encodings.

Stable Diffusion 1.x/2.x has one tower and reads its last hidden state, after the final norm. SDXL has two, which cut
text into the same tokens; it reads the hidden state before each one's last layer, laid side by side, and beside them
the second tower's pooled embedding of the whole prompt (Podell et al. 2023, arXiv 2307.01952, section 2.1).

Dimensions:  B prompts, N = ``TextEncoder.length`` positions, D = ``TextEncoder.width`` of all towers side by side,
             D_k width of tower k, P width of the pooled embedding
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from workers.engine.errors import ModelUnsupported, PromptTooLong


@dataclass(frozen=True)
class Tower:
    """A CLIP tokenizer and text model, frozen, in float32; ``penultimate`` picks the layer that is read."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel | CLIPTextModelWithProjection
    penultimate: bool = False

    @property
    def width(self) -> int:
        """D_k: the length of one encoding, and of one token embedding."""
        return int(self.model.config.hidden_size)

    @cached_property
    def vocabulary(self) -> str:
        """How text is cut into tokens, in a form to compare and to hash."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        length = int(self.tokenizer.model_max_length)
        return json.dumps([sorted(backend["vocab"].items()), backend["merges"], length])

    def read(self, ids: Tensor, embeddings: Mapping[tuple[int, int], Tensor]) -> Reading:
        """Read token rows (B, N), with the token embedding at some (row, position) replaced by a vector (D_k,)."""
        with self._replaced(embeddings):
            output = self.model(ids, output_hidden_states=self.penultimate)
        encodings = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        return Reading(encodings, output.get("text_embeds"))

    @contextmanager
    def _replaced(self, embeddings: Mapping[tuple[int, int], Tensor]) -> Iterator[None]:
        """Swap token embeddings on their way into the model: cheaper than a grown copy of the whole table."""
        if not embeddings:
            yield
            return
        rows, positions = zip(*embeddings, strict=True)
        vectors = torch.stack(tuple(embeddings.values()))  # (count, D_k)

        def replace(_module: object, _inputs: object, output: Tensor) -> Tensor:
            where = (torch.tensor(rows, device=output.device), torch.tensor(positions, device=output.device))
            return output.index_put(where, vectors.to(output.dtype))  # (B, N, D_k)

        handle = self.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class Reading:
    """What prompts say: ``encodings`` (B, N, D) of their tokens, and ``pooled`` (B, P) where a tower projects one."""

    encodings: Tensor
    pooled: Tensor | None


class TextEncoder:
    """One or more towers that read the same tokens.

    Where ``blank_is_zero``, an empty prompt has zeros for encodings: what a base model learned to draw without a
    caption from (``force_zeros_for_empty_prompt`` of its pipeline).
    """

    def __init__(self, *towers: Tower, blank_is_zero: bool = False) -> None:
        """Raises ModelUnsupported where towers cut text differently: a token's place must be the same in all."""
        if any(tower.vocabulary != towers[0].vocabulary for tower in towers[1:]):
            raise ModelUnsupported("the tokenizers of the two text encoders do not share a vocabulary")
        self.towers = towers
        self.blank_is_zero = blank_is_zero

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first tower's; others differ in their padding only."""
        return self.towers[0].tokenizer

    @property
    def length(self) -> int:
        """N: how many positions every prompt is padded to."""
        return int(self.tokenizer.model_max_length)

    @property
    def widths(self) -> tuple[int, ...]:
        """D_k of every tower."""
        return tuple(tower.width for tower in self.towers)

    @property
    def width(self) -> int:
        """D: the length of one encoding."""
        return sum(self.widths)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        device: torch.device = self.towers[0].model.device
        return device

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a piece of text, without begin, end or padding."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    def row(self, tokens: Sequence[int]) -> list[int]:
        """Frame and pad tokens to N positions; raises PromptTooLong, since text cut off in silence helps nobody."""
        room = self.length - 2
        if len(tokens) > room:
            raise PromptTooLong(f"the prompt has {len(tokens)} tokens; this model reads {room}")
        start, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        return [start, *tokens, end, *[pad] * (room - len(tokens))]

    def encode(
        self,
        rows: Sequence[Sequence[int]],
        embeddings: Mapping[tuple[int, int], Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """Return the encodings (B, N, D) of token rows; arguments as of `read`."""
        return self.read(rows, embeddings).encodings

    def read(
        self,
        rows: Sequence[Sequence[int]],
        embeddings: Mapping[tuple[int, int], Sequence[Tensor]] | None = None,
    ) -> Reading:
        """Read token rows with every tower.

        ``embeddings`` replaces the token embedding at (row, position) by given vectors (D_k,), one for each tower,
        differentiably.
        """
        ids = torch.tensor(rows, device=self.device)  # (B, N)
        readings = []
        for k, tower in enumerate(self.towers):
            own = {place: vectors[k] for place, vectors in (embeddings or {}).items()}
            readings.append(tower.read(self._padded_for(tower, ids), own))
        encodings = torch.cat([reading.encodings for reading in readings], dim=-1)  # (B, N, D)
        pooled = readings[-1].pooled  # (B, P)
        if self.blank_is_zero:
            said = ids[:, 1] != self.tokenizer.eos_token_id  # (B,)
            encodings = encodings * said[:, None, None]
            pooled = None if pooled is None else pooled * said[:, None]
        return Reading(encodings, pooled)

    def token_embeddings(self, token: int) -> tuple[Tensor, ...]:
        """Return a copy of one row (D_k,) of every tower's embedding table."""
        return tuple(tower.model.get_input_embeddings().weight[token].detach().clone() for tower in self.towers)

    def fingerprint(self) -> str:
        """Hash weights and vocabulary: concepts live in this encoder's space and in no other."""
        digest = hashlib.sha256()
        for tower in self.towers:
            for name, parameter in sorted(tower.model.named_parameters()):
                digest.update(name.encode())
                digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
            digest.update(tower.vocabulary.encode())
        return digest.hexdigest()

    def _padded_for(self, tower: Tower, ids: Tensor) -> Tensor:
        """Return rows (B, N) with the tower's own padding behind the end of the text."""
        pad = tower.tokenizer.pad_token_id
        if pad == self.tokenizer.pad_token_id:
            return ids
        ends = ids == self.tokenizer.eos_token_id
        behind = ends.cumsum(1) - ends.long() > 0
        return ids.masked_fill(behind, pad)
