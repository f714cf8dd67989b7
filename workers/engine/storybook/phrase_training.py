"""Makes the text tower say of a caption's later things as clearly what they are as of the first.

A small causal tower that was only asked about captions as a whole lets the first noun drown the others: of what varies
in the encoding of the second noun little is that thing's class, a U-Net cannot draw what it hardly hears, and the
contrast of a CLIP pair does not mind. So the tower is distilled from itself: every later phrase ("a blue dog", or "a
hat" that is worn) is to be encoded as the tower encodes that phrase alone, plus a constant that tells its place in the
caption, and every other token as before.

| symbol | code | meaning |
|---|---|---|
| h(t, c) | | the old tower's encoding of token t in caption c |
| m_r | markers | mean over captions of h(noun, caption) - h(noun, phrase alone), for the phrases of role r |
| | target | h(t, phrase alone) + m_r for a later phrase's tokens, h(t, caption) for all others |

Dimensions: M captions, N token positions, D width
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.networks import token_ids, word_tokens
from workers.engine.storybook.text_training import sample_captions, until_spent

_AT_ONCE: Final = 512
_WEIGHT: Final = 3.0  # of a later phrase's token, beside any other's
_FIRST_HELD_OUT: Final = 1 << 30


@dataclass(frozen=True)
class PhraseSettings:
    """How long to train; `steps`, where given, may end it before its time."""

    minutes: float
    steps: int | None = None
    captions: int = 40_000
    batch: int = 96
    learning_rate: float = 1.5e-3
    seed: int = 0


@dataclass(frozen=True)
class PhraseRecord:
    """What came of it: the share of a second noun's variance that its class explains, and how far the rest drifted."""

    steps: int
    class_share_before: float
    class_share: float
    drift: float  # mean square by which tokens of other phrases moved


@dataclass(frozen=True)
class Phrase:
    """Tokens [start, end) of a caption, noun last; the role says what the phrase is in it."""

    start: int
    end: int
    role: str  # "thing 2", "thing 3", "worn by 1", ...


class Grammar:
    """Finds the phrases of a tokenised caption."""

    def __init__(self, tokenizer: CLIPTokenizer):
        self._nouns = set(word_tokens(tokenizer, KINDS))
        self._breaks = set(word_tokens(tokenizer, ("wearing", "and", "to")))
        (self._wearing,) = word_tokens(tokenizer, ("wearing",))
        self._end = tokenizer.eos_token_id

    def later_phrases(self, ids: Sequence[int]) -> list[Phrase]:
        """Return every phrase but the first thing's, in order."""
        phrases: list[Phrase] = []
        things, start = 0, 1
        for place in range(1, ids.index(self._end)):
            if ids[place] in self._breaks:
                start = place + 1
            elif ids[place] in self._nouns:
                worn = ids[start - 1] == self._wearing
                things += not worn
                if worn or things > 1:
                    role = f"worn by {things}" if worn else f"thing {things}"
                    phrases.append(Phrase(start, place + 1, role))
        return phrases


class PhraseTargets:
    """What every token of the captions is to be encoded as."""

    def __init__(self, tower: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]):
        self.ids = token_ids(tokenizer, captions)  # (M, N)
        grammar = Grammar(tokenizer)
        self._phrases = [grammar.later_phrases(row) for row in self.ids.tolist()]
        self._tower = tower
        self._alone = self._encode_alone(tokenizer)
        self._markers = self._measure_markers()

    def of(self, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets (B, N, D) of the captions ``picks`` (B,), and which tokens are of a later phrase (B, N)."""
        target = encode(self._tower, self.ids[picks]).clone()
        later = torch.zeros(target.shape[:2], dtype=torch.bool)
        for row, pick in enumerate(picks.tolist()):
            for phrase in self._phrases[pick]:
                alone = self._alone[self._words(pick, phrase)]  # (L, D)
                target[row, phrase.start : phrase.end] = alone + self._markers[phrase.role]
                later[row, phrase.start : phrase.end] = True
        return target, later

    def _words(self, pick: int, phrase: Phrase) -> tuple[int, ...]:
        return tuple(self.ids[pick, phrase.start : phrase.end].tolist())

    def _encode_alone(self, tokenizer: CLIPTokenizer) -> dict[tuple[int, ...], Tensor]:
        """Encode each phrase as a caption of its own: (L, D) for L tokens."""
        found = sorted({self._words(k, phrase) for k, phrases in enumerate(self._phrases) for phrase in phrases})
        rows = torch.full((len(found), self.ids.shape[1]), tokenizer.pad_token_id)
        for row, words in zip(rows, found, strict=True):
            framed = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
            row[: len(framed)] = torch.tensor(framed)
        encodings = encode(self._tower, rows)  # (P, N, D)
        return {words: encodings[k, 1 : 1 + len(words)] for k, words in enumerate(found)}

    def _measure_markers(self) -> dict[str, Tensor]:
        """Return m_r (D,) of every role."""
        shifts: defaultdict[str, list[Tensor]] = defaultdict(list)
        encodings = encode(self._tower, self.ids)  # (M, N, D)
        for pick, phrases in enumerate(self._phrases):
            for phrase in phrases:
                alone = self._alone[self._words(pick, phrase)][-1]
                shifts[phrase.role].append(encodings[pick, phrase.end - 1] - alone)
        return {role: torch.stack(found).mean(0) for role, found in shifts.items()}


def train_phrases(
    tower: CLIPTextModel, tokenizer: CLIPTokenizer, settings: PhraseSettings
) -> tuple[CLIPTextModel, PhraseRecord]:
    """Return a tower that encodes later phrases as clearly as the first; the given one is left as it is."""
    old = copy.deepcopy(tower).eval().requires_grad_(False)
    new = copy.deepcopy(tower).train().requires_grad_(True)
    for each in (old, new):
        each.set_attn_implementation("eager")
    targets = PhraseTargets(old, tokenizer, sample_captions(settings.captions))
    optimiser = torch.optim.AdamW(new.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator().manual_seed(settings.seed)
    for step, spent in until_spent(settings.minutes, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / 50, (1 - spent) * 1.5)
        picks = torch.randint(len(targets.ids), (settings.batch,), generator=generator)
        target, later = targets.of(picks)
        with torch.autocast("cpu", torch.bfloat16):
            encodings = new(targets.ids[picks]).last_hidden_state
        weights = 1 + (_WEIGHT - 1) * later  # (B, N)
        loss = ((encodings.float() - target).square().mean(2) * weights).sum() / weights.sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(new.parameters(), 1.0)
        optimiser.step()
    return new.eval(), _record(old, new.eval(), tokenizer, settings, steps=step + 1)


@torch.no_grad()
def encode(tower: CLIPTextModel, ids: Tensor) -> Tensor:
    """Return the encodings (M, N, D) of token ids (M, N)."""
    starts = range(0, len(ids), _AT_ONCE)
    return torch.cat([tower(ids[start : start + _AT_ONCE]).last_hidden_state for start in starts])


def class_share(tower: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> float:
    """Return how much of the second noun's variance over captions its class explains (between-class over total)."""
    ids, grammar = token_ids(tokenizer, captions), Grammar(tokenizer)
    places = [
        (row, phrase.end - 1)
        for row, words in enumerate(ids.tolist())
        for phrase in grammar.later_phrases(words)
        if phrase.role == "thing 2"
    ]
    rows, columns = zip(*places, strict=True)
    nouns, encodings = ids[rows, columns], encode(tower, ids)[rows, columns]  # (K,), (K, D)
    total = (encodings - encodings.mean(0)).square().sum()
    own = torch.stack([encodings[nouns == noun].mean(0) for noun in nouns])
    return float(1 - (encodings - own).square().sum() / total)


def _record(
    old: CLIPTextModel, new: CLIPTextModel, tokenizer: CLIPTokenizer, settings: PhraseSettings, *, steps: int
) -> PhraseRecord:
    captions = sample_captions(max(200, settings.captions // 20), first=_FIRST_HELD_OUT)
    targets = PhraseTargets(old, tokenizer, captions)
    wanted, later = targets.of(torch.arange(len(captions)))
    drift = (encode(new, targets.ids) - wanted).square().mean(2)[~later].mean()
    before, after = (class_share(tower, tokenizer, captions) for tower in (old, new))
    return PhraseRecord(steps, before, after, float(drift))
