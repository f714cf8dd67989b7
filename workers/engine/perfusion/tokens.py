"""Placeholders: how a prompt such as ``<tom> wearing a hat`` names a concept, and where that lands among the tokens.

A placeholder takes one token position and carries the concept's own embedding. Where the superclass word stands in
for it (training starts there, and the global key lock reads its keys there), a superclass of k sub-tokens takes k
positions; its last sub-token is the one that the placeholder lines up with, as ROME takes the last token of its
subject.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from workers.engine.errors import PlaceholderUnknown, SuperclassInvalid
from workers.engine.text import TextEncoder

PLACEHOLDER = re.compile(r"<([a-z0-9][a-z0-9-]*)>")


@dataclass(frozen=True)
class TokenRow:
    """One prompt as N tokens; ``positions`` tells where each concept's placeholder, or its stand-in, ends."""

    ids: tuple[int, ...]
    positions: tuple[tuple[str, int], ...]

    def at(self, name: str) -> list[int]:
        """Return every position that belongs to the concept ``name``."""
        return [position for owner, position in self.positions if owner == name]


def placeholders(prompt: str) -> set[str]:
    """Return the names that a prompt mentions as ``<name>``."""
    return set(PLACEHOLDER.findall(prompt))


def superclass_tokens(text: TextEncoder, superclass: str) -> list[int]:
    """Return the sub-tokens of a superclass; raises SuperclassInvalid for an empty or an endless one."""
    tokens = text.tokens(superclass)
    if not tokens or PLACEHOLDER.search(superclass):
        raise SuperclassInvalid(f"{superclass!r} is not a word")
    if len(tokens) > text.length // 2:
        raise SuperclassInvalid(f"superclass {superclass!r} has {len(tokens)} tokens; give one or two plain words")
    return tokens


def tokenize(text: TextEncoder, prompt: str, stand_ins: dict[str, list[int]], spelled_out: Collection[str]) -> TokenRow:
    """Turn a prompt into a row of N tokens.

    ``stand_ins`` holds the superclass tokens of every concept the prompt may name. A concept in ``spelled_out`` is
    written as its whole superclass; any other takes one position, with its superclass's last token as the id.
    Raises PlaceholderUnknown and PromptTooLong.
    """
    tokens: list[int] = []
    positions: list[tuple[str, int]] = []
    for index, piece in enumerate(PLACEHOLDER.split(prompt)):  # text and names alternate
        if index % 2 == 0:
            tokens += text.tokens(piece)
            continue
        if piece not in stand_ins:
            raise PlaceholderUnknown(f"the prompt names <{piece}>, which is none of this request's concepts")
        tokens += stand_ins[piece] if piece in spelled_out else stand_ins[piece][-1:]
        positions.append((piece, len(tokens)))  # begin-of-text shifts every token by one
    return TokenRow(tuple(text.row(tokens)), tuple(positions))


def align(value_row: TokenRow, key_row: TokenRow) -> list[int]:
    """For every position of ``value_row`` give the matching position of ``key_row``, whose stand-ins may be longer.

    Leading sub-tokens of a stand-in match nothing and are left out; the end is filled up with padding.
    """
    aligned: list[int] = []
    length, shift, placeholder_shift = len(value_row.ids), 0, {}
    for (_, here), (_, there) in zip(value_row.positions, key_row.positions, strict=True):
        placeholder_shift[here] = there - here
    for position in range(length):
        shift = placeholder_shift.get(position, shift)
        aligned.append(min(position + shift, length - 1))
    return aligned
