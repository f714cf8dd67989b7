"""Writes the model card: what the model is, how it was made, what it scores and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.engine.storybook.facts import GUIDANCE_INTERVAL
from workers.engine.storybook.identity import ACCESSORIES, CLASSES, COLOUR_NAMES, PATTERNS
from workers.engine.storybook.scores import ModelScores
from workers.engine.storybook.world import SCENES, STYLES

_CARD = """# storybook

The bundled base model: a miniature latent diffusion pipeline of a procedural picture world. It lets every path of the
product run, be tested and be measured without a download. Any `StableDiffusionPipeline` loads this folder as it is.

![Contact sheet: fixed prompts, {scores.default_steps} guided steps](sheet.png)

* Pictures of 64 x 64 pixels; latents of 16 x 16 x 8; v-prediction, zero terminal signal-to-noise ratio.
* Knows {classes}, {accessories} (worn or by themselves),
  in {colours}; {patterns};
  before a plain backdrop, {places}, some of it by night; as a {styles}. One to three things per picture.
* Of every class one colour was kept from training pictures, to see whether the model composes what it knows.
* Captions follow a fixed grammar ("a striped red cat wearing a blue hat in the snow at night"); free wording is
  beyond it.
* All of it was made by this repository's `workers.engine.storybook` and a prototype of it: no picture, caption or
  weight comes from elsewhere.

## Scores

Over {count} prompts that share no seed with training pictures; {scores.steps} DDIM steps, guidance {scores.guidance:g}
in all but the noisiest {unguided:.0%} of them. A judge that was trained on renders alone reads the pictures. Beside its
scores stand those of renders of the same compositions, and those of the generated pictures against each other's
prompts, as if prompts were never read. "accessory" counts only prompts that ask for one; sketches show no colour; of
two things the left one is asked about.

| attribute | generated pictures | renders | other prompts | prompts |
|---|---|---|---|---|
{following}

The identity judge picks a held-out individual among 10 of the same class, colour and pattern from one render in
{scores.identity.share:.1%} of {scores.identity.count} cases (chance 10 %). One guided picture of
{scores.default_steps} steps takes {scores.seconds:.2f} s of one CPU core.

## How it was made

{making}

## Weaknesses

{weaknesses}
"""

_WEAKNESSES = """* Outlines are soft, and small faces smear. Of three things in one picture not all are right;
  watercolors are drawn worst.
* Small accessories may be left out.
* Words outside the caption grammar mean nothing to it."""


def write_card(folder: Path, scores: ModelScores, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `README.md` into the model's folder."""
    rows = [
        f"| {name} | {s.generated:.3f} | {s.rendered:.3f} | {s.shuffled:.3f} | {s.count} |"
        for name, s in scores.following.items()
    ]
    text = _CARD.format(
        scores=scores,
        unguided=1 - GUIDANCE_INTERVAL[1],
        classes=f"{len(CLASSES)} classes ({', '.join(CLASSES)})",
        accessories=", ".join(ACCESSORIES),
        colours=", ".join(COLOUR_NAMES),
        patterns=", ".join(PATTERNS),
        places=", ".join(SCENES[1:]),
        styles=", ".join(STYLES),
        count=max(score.count for score in scores.following.values()),
        following="\n".join(rows),
        making="\n".join(f"* **{stage}**: {_listed(facts)}" for stage, facts in records.items()),
        weaknesses=_WEAKNESSES,
    )
    (folder / "README.md").write_text(text)


def _listed(facts: Mapping[str, Any]) -> str:
    """Spell what a stage recorded, nested facts in brackets and series left out."""
    parts = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_listed(value)})")
        elif not isinstance(value, list):
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)
