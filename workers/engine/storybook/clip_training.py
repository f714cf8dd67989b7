"""Trains a CLIP pair on fresh renders and their captions.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision": symmetric InfoNCE
with a learned temperature.

Besides the contrast, both towers answer the questions of `questions.py`: the text tower from its token encodings what
the caption states, the vision tower from its patch encodings what the full caption states, without which so small a
tower needs many times the pictures.

A tower that conditions a U-Net is anchored as well: the contrast may shape the encoding that is pooled, while every
other token stays where the tower's own training put it. Left alone, the contrast spreads the caption's colour over all
padding and draws the classes together, and a U-Net then learns colours at once and classes hardly at all.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from workers.engine.storybook.clip_networks import make_clip, round_to_half
from workers.engine.storybook.clip_pairs import ClipBatch, ClipBatches, render_pairs
from workers.engine.storybook.identity import Split
from workers.engine.storybook.judges import to_tensor
from workers.engine.storybook.networks import WIDTH, token_ids
from workers.engine.storybook.questions import Questions
from workers.engine.storybook.text_training import TextSettings, answers_right, train_text_encoder, until_spent

log = logging.getLogger(__name__)

_FIRST_PAIR: Final = 1 << 37
_PAIRS_PER_SEED: Final = 1 << 24
"""Pictures are numbered on from here for each seed, so that another seed means other pictures."""

_MAX_LOGIT_SCALE: Final = math.log(100)
_EVERY: Final = 200


@dataclass(frozen=True)
class ClipSettings:
    """How to train one pair: first the text tower alone, then both; steps, where given, may end a part before its time.

    A question's loss weighs `text_questions` in the text tower and `picture_questions` in the vision tower, leaving the
    anchor, as a mean square, `anchor`, and the contrast 1. Of every batch, `twins` are rough twins (`clip_pairs.py`).
    Retrieval is measured in `groups` of `candidates`.
    """

    minutes: float
    text_minutes: float
    steps: int | None = None
    text_steps: int | None = None
    pictures: int = 40_000
    captions: int = 40_000
    batch: int = 256
    twins: int = 0
    learning_rate: float = 2.5e-3
    text_questions: float = 0.25
    picture_questions: float = 0.25
    anchor: float = 0.0
    split: Split = "train"
    seed: int = 0
    groups: int = 10
    candidates: int = 100


@dataclass(frozen=True)
class Retrieval:
    """How often the nearest of `candidates` is the right one, over `queries` full captions and as many pictures."""

    picture_for_caption: float
    caption_for_picture: float
    candidates: int
    queries: int


@dataclass(frozen=True)
class ClipRecord:
    """What a training run came to; the answers are shares of right ones on held-out captions."""

    steps: int
    pairs_seen: int
    answers_before: float
    answers: float
    retrieval: Retrieval


def train_clip(tokenizer: CLIPTokenizer, settings: ClipSettings) -> tuple[CLIPModel, ClipRecord]:
    """Train a pair for the given time; its weights are such as fp16 can hold."""
    text = TextSettings(
        minutes=settings.text_minutes,
        steps=settings.text_steps,
        captions=settings.captions,
        split=settings.split,
        seed=settings.seed,
    )
    encoder, text_questions = train_text_encoder(tokenizer, text)
    before = answers_right(encoder, text_questions, tokenizer, settings.split)
    first = _FIRST_PAIR + settings.seed * _PAIRS_PER_SEED
    pairs = render_pairs(settings.split, settings.pictures, first=first)
    batches = ClipBatches(pairs, tokenizer, size=settings.batch, twins=settings.twins, seed=settings.seed)
    trainer = _Trainer(make_clip(encoder), text_questions, settings)
    steps = trainer.run(batches)
    clip = round_to_half(trainer.clip.eval())
    return clip, ClipRecord(
        steps=steps,
        pairs_seen=steps * settings.batch,
        answers_before=before,
        answers=answers_right(clip.text_model, text_questions, tokenizer, settings.split),
        retrieval=measure_retrieval(clip, tokenizer, settings),
    )


class _Trainer:
    """A pair and what reads its towers, on their way down."""

    def __init__(self, clip: CLIPModel, text_questions: Questions, settings: ClipSettings):
        self.clip = clip.train()
        self._settings = settings
        self._text_questions, self._picture_questions = text_questions, Questions(WIDTH)
        self._anchor = copy.deepcopy(clip.text_model).eval().requires_grad_(False)
        clip.set_attn_implementation("eager")
        self._parameters = [
            parameter for module in (clip, text_questions, self._picture_questions) for parameter in module.parameters()
        ]
        self._optimiser = torch.optim.AdamW(
            self._parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
        )

    def run(self, batches: ClipBatches) -> int:
        """Descend until time or steps are used up, and return the number of steps."""
        for step, spent in until_spent(self._settings.minutes, self._settings.steps):
            rate = self._settings.learning_rate * min(1.0, (step + 1) / 50, (1 - spent) * 1.3)
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            loss = self._loss(batches.draw())
            self._descend(loss)
            if step % _EVERY == 0:
                log.info("step %d, %.0f %% spent, loss %.3f", step, 100 * spent, loss.item())
        return step + 1

    def _loss(self, batch: ClipBatch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            text = self.clip.text_model(input_ids=batch.ids)
            vision = self.clip.vision_model(pixel_values=batch.pixels)
            texts = self.clip.text_projection(text.pooler_output)  # (B, D)
            images = self.clip.visual_projection(vision.pooler_output)  # (B, D)
            patches = functional.layer_norm(vision.last_hidden_state, (WIDTH,))  # (B, 65, D)
            answered = self._settings.text_questions * self._text_questions.loss(text.last_hidden_state, batch.said)
            seen = self._settings.picture_questions * self._picture_questions.loss(patches, batch.shown)
        contrast = contrastive_loss(images.float(), texts.float(), self.clip.logit_scale.exp())
        left = self._settings.anchor * self._drift(text.last_hidden_state, batch.ids) if self._settings.anchor else 0.0
        return contrast + answered + seen + left

    def _drift(self, encodings: Tensor, ids: Tensor) -> Tensor:
        """Mean square by which encodings (B, N, D) have left the anchor, but for the pooled one -> scalar."""
        with torch.no_grad():
            kept = self._anchor(input_ids=ids).last_hidden_state  # (B, N, D)
        pooled = (ids == self.clip.config.text_config.eos_token_id).int().argmax(1)  # (B,)
        others = torch.arange(ids.shape[1]) != pooled[:, None]  # (B, N)
        drift: Tensor = (encodings.float() - kept.float()).square().mean(2)[others].mean()
        return drift

    def _descend(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of features (B, D) whose rows belong together, normalised here."""
    scores = scale * functional.normalize(images, dim=1) @ functional.normalize(texts, dim=1).T  # (B, B)
    own = torch.arange(len(scores))
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


@torch.no_grad()
def measure_retrieval(clip: CLIPModel, tokenizer: CLIPTokenizer, settings: ClipSettings) -> Retrieval:
    """Look for each full caption's picture, and each picture's caption, among held-out renders.

    The renders are of what the pair's split may see, but share no seed with it.
    """
    pictures_found, captions_found, size = 0, 0, settings.candidates
    for group in range(settings.groups):
        pairs = render_pairs("held-out", size, first=_FIRST_PAIR + group * size, like=settings.split)
        images = clip.get_image_features(to_tensor(pairs.pixels)).pooler_output  # (K, D)
        texts = clip.get_text_features(token_ids(tokenizer, [full for full, *_ in pairs.captions])).pooler_output
        scores = functional.normalize(texts, dim=1) @ functional.normalize(images, dim=1).T  # (K, K)
        own = torch.arange(size)
        pictures_found += int((scores.argmax(1) == own).sum())
        captions_found += int((scores.argmax(0) == own).sum())
    queries = settings.groups * size
    return Retrieval(pictures_found / queries, captions_found / queries, size, queries)
