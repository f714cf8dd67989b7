"""Measures the bundled model: does it follow prompts, can the judges be trusted, how long does a picture take.

Every score of generated pictures stands beside the judge's own score on renders of the very same compositions, which is
the most it can mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import split_rng
from workers.engine.storybook.judge_training import lookalikes, sightings
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures
from workers.engine.storybook.render import render
from workers.engine.storybook.sampling import Mixture, labels, sample_composition
from workers.engine.storybook.world import SIZE, Composition

_PROMPTED: Final = Mixture(plain=0.2, accessory=0.4, pair=0.0, night=0.25, sketch=0.05)
_FIRST_PROMPT: Final = 1 << 30
_FIRST_GROUP: Final = 1 << 31
_BATCH: Final = 16
_SCORED: Final = (
    ("class",),
    ("colour",),
    ("pattern",),
    ("accessory",),
    ("scene",),
    ("night",),
    ("style",),
    ("class", "colour", "scene"),
)
"""What is scored, alone or together."""


@dataclass(frozen=True)
class Score:
    """Share of right answers on generated pictures and on renders of the same compositions, over `count` of each."""

    generated: float
    rendered: float
    count: int


@dataclass(frozen=True)
class ModelScores:
    """All that the model card reports: `following` was measured at `steps` steps, `seconds` is for `default_steps`."""

    following: Mapping[str, Score]
    identity: float
    seconds: float
    steps: int
    default_steps: int
    guidance: float


def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, steps: int, guidance: float, seed: int
) -> Pictures:
    """Draw one picture per prompt: (N, 64, 64, 3)."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(prompts), _BATCH):
        drawn = pipeline(
            list(prompts[start : start + _BATCH]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
            height=SIZE,
            width=SIZE,
            output_type="np",
        ).images
        parts.append((drawn * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def held_out_prompts(count: int) -> tuple[list[str], list[Composition]]:
    """Draw compositions of one thing that no training picture shares a seed with, and all that words say of them."""
    rngs = [split_rng("held-out", _FIRST_PROMPT + k) for k in range(count)]
    compositions = [sample_composition(rng, _PROMPTED) for rng in rngs]
    pairs = zip(rngs, compositions, strict=True)
    return [caption(rng, c.scene, c.instances, full=True) for rng, c in pairs], compositions


def prompt_following(
    pipeline: StableDiffusionPipeline, judge: AttributeJudge, *, count: int, steps: int, guidance: float, seed: int = 0
) -> dict[str, Score]:
    """Score each attribute over generated pictures, where a picture of that prompt can show it at all."""
    prompts, compositions = held_out_prompts(count)
    generated = judge.read(generate(pipeline, prompts, steps=steps, guidance=guidance, seed=seed))
    rendered = judge.read(np.stack([render(c.scene, c.instances, c.layout)[0] for c in compositions]))
    wanted = [labels(c) for c in compositions]
    scores = {}
    for names in _SCORED:
        kept = [k for k in range(count) if all(_shows(name, wanted[k]) for name in names)]
        generated_right, rendered_right = (
            float(np.mean([all(said[k][name] == wanted[k][name] for name in names) for k in kept]))
            for said in (generated, rendered)
        )
        scores[" and ".join(names)] = Score(generated_right, rendered_right, len(kept))
    return scores


def _shows(name: str, wanted: dict[str, str]) -> bool:
    """A sketch has no colours, and an accessory can only be followed where one is asked for."""
    if name == "colour":
        return wanted["style"] != "sketch"
    return name != "accessory" or wanted["accessory"] != "none"


def identity_accuracy(judge: IdentityJudge, *, groups: int, candidates: int = 10, renders: int = 5) -> float:
    """Return how often the judge picks a held-out identity among lookalikes of one class, colour and pattern."""
    right = 0
    for group in range(groups):
        first = _FIRST_GROUP + group * 1000
        faces = lookalikes("held-out", first, candidates)
        known = [sightings("held-out", first + 100 + k, face, renders) for k, face in enumerate(faces)]
        queries = np.concatenate([sightings("held-out", first + 200 + k, face, 1) for k, face in enumerate(faces)])
        right += sum(pick == k for k, pick in enumerate(judge.pick(queries, [list(some) for some in known])))
    return right / (groups * candidates)


def seconds_per_picture(pipeline: StableDiffusionPipeline, *, steps: int, guidance: float) -> float:
    """Return the processor time of one guided picture after a warm-up: what it takes on an idle core."""
    generate(pipeline, ["a red cat"], steps=2, guidance=guidance, seed=0)
    started = time.process_time()
    generate(pipeline, ["a red cat"], steps=steps, guidance=guidance, seed=0)
    return time.process_time() - started
