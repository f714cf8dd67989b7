"""The text side of a base model: prompts become token rows, token rows become encodings.

Dimensions:  B prompts, N = ``TextEncoder.length`` positions, D encoder width
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from workers.engine.errors import PromptTooLong


@dataclass(frozen=True)
class TextEncoder:
    """A CLIP tokenizer and text model, frozen, in float32."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel

    @property
    def length(self) -> int:
        """N: how many positions every prompt is padded to."""
        return int(self.tokenizer.model_max_length)

    @property
    def width(self) -> int:
        """D: the length of one encoding."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        device: torch.device = self.model.device
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
        self, rows: Sequence[Sequence[int]], embeddings: Mapping[tuple[int, int], Tensor] | None = None
    ) -> Tensor:
        """Return the encodings (B, N, D) of token rows.

        ``embeddings`` replaces the token embedding at (row, position) by a given vector (D,), differentiably.
        """
        ids = torch.tensor(rows, device=self.device)  # (B, N)
        with self._replaced(embeddings or {}):
            encodings: Tensor = self.model(ids).last_hidden_state  # (B, N, D)
        return encodings

    def token_embedding(self, token: int) -> Tensor:
        """Return a copy of one row (D,) of the embedding table."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table[token].detach().clone()

    def fingerprint(self) -> str:
        """Hash weights and vocabulary: concepts live in this encoder's space and in no other."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        vocabulary = [sorted(backend["vocab"].items()), backend["merges"], self.length]
        digest.update(json.dumps(vocabulary).encode())
        return digest.hexdigest()

    @contextmanager
    def _replaced(self, embeddings: Mapping[tuple[int, int], Tensor]) -> Iterator[None]:
        """Swap token embeddings on their way into the model: cheaper than a grown copy of the whole table."""
        if not embeddings:
            yield
            return
        rows, positions = zip(*embeddings, strict=True)
        vectors = torch.stack(tuple(embeddings.values()))  # (count, D)

        def replace(_module: object, _inputs: object, output: Tensor) -> Tensor:
            where = (torch.tensor(rows, device=output.device), torch.tensor(positions, device=output.device))
            return output.index_put(where, vectors.to(output.dtype))  # (B, N, D)

        handle = self.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()
