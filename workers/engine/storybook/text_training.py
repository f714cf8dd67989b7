"""The tokenizer, and the text tower's start: made without a single picture.

The tower learns to answer questions about captions (`questions.py`). Two minutes on one core suffice, after which words
are separable: the contrastive training (`clip_training.py`) and the U-Net start from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import COLOUR_NAMES, KINDS, PATTERNS, Split, split_rng
from workers.engine.storybook.networks import TOKENS, WIDTH, make_text_encoder, token_ids
from workers.engine.storybook.questions import Questions, stated
from workers.engine.storybook.sampling import OUTDOORS, STUDIO, Mixture, sample_composition

_SPECIAL: Final = ("<|startoftext|>", "<|endoftext|>")
_FIRST_CAPTION: Final = 1 << 38
_FILLERS: Final = (
    "the this that one my your photo image drawing painting portrait good nice cute small big little old new "
    "sitting standing looking day with at in on"
)
"""Words that prompts use and captions do not: each becomes one token, and the tower learns to read past them."""

_FILLED: Final = 0.25
_QUESTIONED: Final = 1000
_FIRST_HELD_OUT: Final = 1 << 30


@dataclass(frozen=True)
class TextSettings:
    """How to start the text tower, until `minutes` or `steps` are spent; `split` says which world captions tell of."""

    minutes: float
    steps: int | None = None
    captions: int = 40_000
    batch: int = 64
    learning_rate: float = 2e-3
    split: Split = "train"
    seed: int = 0


def mixtures(split: Split) -> tuple[Mixture, Mixture]:
    """Return studio and outdoors as a split may see them: training pictures keep some classes and colours apart."""
    unseen = split != "train"
    return replace(STUDIO, unseen=unseen), replace(OUTDOORS, unseen=unseen)


def sample_captions(count: int, *, first: int = 0, split: Split = "train") -> list[str]:
    """Draw captions of the world, one in three of a studio picture."""
    studio, outdoors = mixtures(split)
    drawn = []
    for k in range(count):
        rng = split_rng(split, _FIRST_CAPTION + first + k)
        composition = sample_composition(rng, studio if k % 3 == 0 else outdoors)
        drawn.append(caption(rng, composition.scene, composition.instances))
    return drawn


def train_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the world is one token and any other word still encodes.

    The same captions give the same vocabulary.
    """
    blank = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=[f"{byte}</w>" for byte in alphabet],  # any byte may end a word; numbered before any is seen
        show_progress=False,
    )
    words = " ".join([*KINDS, *COLOUR_NAMES, *PATTERNS, _FILLERS])
    tokenizer.train_from_iterator([*captions, words, words], trainer)
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    numbered = {token: number for number, token in enumerate([*tokens, *_SPECIAL])}
    return CLIPTokenizer(vocab=numbered, merges=[tuple(merge) for merge in merges], model_max_length=TOKENS)


def tokenise(tokenizer: CLIPTokenizer, captions: list[str], rng: Random) -> tuple[Tensor, Tensor]:
    """Return token ids (M, N) and stated answers (M, Q); into some captions goes a word that changes nothing."""
    filled = [_with_filler(rng, text) if rng.random() < _FILLED else text for text in captions]
    return token_ids(tokenizer, filled), torch.tensor([stated(text) for text in captions])


def _with_filler(rng: Random, text: str) -> str:
    words = text.split()
    words.insert(rng.randrange(len(words) + 1), rng.choice(_FILLERS.split()))
    return " ".join(words)


def train_text_encoder(tokenizer: CLIPTokenizer, settings: TextSettings) -> tuple[CLIPTextModel, Questions]:
    """Train a tower for the given time; return it and what reads its encodings."""
    torch.manual_seed(settings.seed)
    captions = sample_captions(settings.captions, split=settings.split)
    ids, truth = tokenise(tokenizer, captions, Random(settings.seed))
    encoder, questions = make_text_encoder(tokenizer), Questions(WIDTH)
    encoder.set_attn_implementation("eager")
    parameters = [*encoder.parameters(), *questions.parameters()]
    optimiser = torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step, spent in until_spent(settings.minutes, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / 30, (1 - spent) * 2)
        picks = torch.randint(len(ids), (settings.batch,))
        with torch.autocast("cpu", torch.bfloat16):
            loss = questions.loss(encoder(ids[picks]).last_hidden_state, truth[picks])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return encoder.eval(), questions


def until_spent(minutes: float, steps: int | None) -> Iterator[tuple[int, float]]:
    """Count steps, with the share spent of the time or of the steps, whichever is more; at least one step."""
    started, step, spent = time.monotonic(), 0, 0.0
    while spent < 1:
        yield step, spent
        step += 1
        spent = max((time.monotonic() - started) / (minutes * 60), step / steps if steps else 0)


@torch.no_grad()
def answers_right(encoder: CLIPTextModel, questions: Questions, tokenizer: CLIPTokenizer, split: Split) -> float:
    """Return the share of right answers about captions that no training has drawn."""
    captions = sample_captions(_QUESTIONED, first=_FIRST_HELD_OUT, split=split)
    ids, truth = tokenise(tokenizer, captions, Random(0))
    encodings = encoder(ids).last_hidden_state  # (M, N, D)
    return questions.accuracy(encodings, truth)
