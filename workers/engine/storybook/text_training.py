"""The tokenizer and the text tower, both made without a single picture.

The tower is trained to answer questions about a caption: which class, colour, pattern and accessory each thing has,
where it is and whether it is night. One attention query per question reads the token encodings, so the answer has to
lie in the tokens, where cross-attention finds it. Two minutes on one core suffice, and the U-Net starts with words that
are already separable.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import CLASSES, COLOUR_NAMES, PATTERNS, split_rng
from workers.engine.storybook.networks import TOKENS, WIDTH, make_text_encoder, token_ids
from workers.engine.storybook.sampling import OUTDOORS, STUDIO, sample_composition
from workers.engine.storybook.world import ACCESSORIES, SCENES

log = logging.getLogger(__name__)

_SPECIAL: Final = ("<|startoftext|>", "<|endoftext|>")
_FIRST_CAPTION: Final = 1 << 38
_OTHER_WORDS: Final = "the this photo image good one small big my with at in on"
"""Words that prompts use and captions do not; each becomes one token."""

_SHARPNESS: Final = 4.0


@dataclass(frozen=True)
class TextSettings:
    """How to train the text tower."""

    minutes: float
    captions: int = 24_000
    batch: int = 48
    learning_rate: float = 2e-3
    seed: int = 0


def sample_captions(count: int, *, first: int = 0) -> list[str]:
    """Draw captions of the world, one in three of a studio picture."""
    drawn = []
    for k in range(count):
        rng = split_rng("train", _FIRST_CAPTION + first + k)
        composition = sample_composition(rng, STUDIO if k % 3 == 0 else OUTDOORS)
        drawn.append(caption(rng, composition.scene, composition.instances))
    return drawn


def train_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the world is one token and any other word still encodes."""
    blank = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*captions, _OTHER_WORDS, _OTHER_WORDS], trainer)
    vocabulary = tokenizer.get_vocab()
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    # Any byte may also end a word.
    tokens += [f"{byte}</w>" for byte in alphabet if f"{byte}</w>" not in vocabulary]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    numbered = {token: number for number, token in enumerate([*tokens, *_SPECIAL])}
    return CLIPTokenizer(vocab=numbered, merges=[tuple(merge) for merge in merges], model_max_length=TOKENS)


def stated(text: str) -> list[int]:
    """Return the answers that a caption gives, 0 where it is silent: `ANSWERS` says how many there are of each."""
    things = text.split(" next to " if " next to " in text else " and ")
    answers = _thing(things[0]) + (_thing(things[1]) if len(things) > 1 else [0] * 5)
    words = text.split()
    place = next((place for place in SCENES[1:] if place in text), "plain" if "background" in words else "")
    background = words[words.index("background") - 1] if "background" in words else ""
    where = [_code(place, SCENES), _code(background, COLOUR_NAMES)]
    return [*answers, *where, int("night" in words), int("sketch" in words)]


_THING_ANSWERS: Final = [len(CLASSES), len(COLOUR_NAMES), len(PATTERNS), len(ACCESSORIES), len(COLOUR_NAMES)]
ANSWERS: Final = [1 + count for count in (*_THING_ANSWERS * 2, len(SCENES), len(COLOUR_NAMES), 1, 1)]


def _thing(phrase: str) -> list[int]:
    """Class, colour and pattern of a thing; kind and colour of what it wears."""
    thing, _, worn = phrase.partition(" wearing ")
    worn_words = worn.split()[:3]
    words = thing.split()
    cls = next((word for word in words if word in CLASSES), "")
    words = words[: words.index(cls)] if cls else []
    return [
        _code(cls, CLASSES),
        _code(next((word for word in words if word in COLOUR_NAMES), ""), COLOUR_NAMES),
        _code(next((word for word in words if word in PATTERNS), ""), PATTERNS),
        _code(next((word for word in worn_words if word in ACCESSORIES), ""), ACCESSORIES),
        _code(next((word for word in worn_words if word in COLOUR_NAMES), ""), COLOUR_NAMES),
    ]


def _code(value: str, values: Sequence[str]) -> int:
    return values.index(value) + 1 if value in values else 0


class Questions(nn.Module):
    """One attention query per question over the token encodings, and a linear answer to each."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.2 * torch.randn(len(ANSWERS), WIDTH))
        self.keys, self.values = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.answers = nn.ModuleList(nn.Linear(WIDTH, count) for count in ANSWERS)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """(B, N, D) -> one (B, answers) per question."""
        scores = torch.einsum("qd,bnd->bqn", self.queries, self.keys(tokens)) * _SHARPNESS / WIDTH**0.5
        read = scores.softmax(-1) @ self.values(tokens)  # (B, Q, D)
        return [answer(read[:, number]) for number, answer in enumerate(self.answers)]


def train_text_encoder(tokenizer: CLIPTokenizer, settings: TextSettings) -> tuple[CLIPTextModel, float]:
    """Train the tower for the given time; return it with the share of held-out answers it gets right."""
    torch.manual_seed(settings.seed)
    captions = sample_captions(settings.captions)
    ids = token_ids(tokenizer, captions)
    truth = torch.tensor([stated(text) for text in captions])  # (M, Q)
    aside = max(1, settings.captions // 50)
    encoder, questions = make_text_encoder(tokenizer), Questions()
    parameters = [*encoder.parameters(), *questions.parameters()]
    optimiser = torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    started, step, spent = time.monotonic(), 0, 0.0
    while spent < 1:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / 30, (1 - spent) * 2)
        picks = torch.randint(aside, len(ids), (settings.batch,))
        said = questions(encoder(ids[picks]).last_hidden_state)
        loss = torch.stack([functional.cross_entropy(s, truth[picks, q]) for q, s in enumerate(said)]).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step, spent = step + 1, (time.monotonic() - started) / (settings.minutes * 60)
    with torch.no_grad():
        said = questions(encoder.eval()(ids[:aside]).last_hidden_state)
    right = torch.stack([s.argmax(1) == truth[:aside, q] for q, s in enumerate(said)])
    return encoder, float(right.float().mean())
