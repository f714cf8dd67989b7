"""Writes `lockstep.json`: what the product has to know of the bundled model and cannot read from its networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from workers.engine.base_model import BaseModel
from workers.engine.prepare import concept_space
from workers.engine.storybook.identity import KINDS

GUIDANCE: Final = 3.0

# Guidance near pure noise makes pictures alike and helps nothing: without it there, prompts are followed as well and
# the pictures are nearer to renders (docs/benchmarks/base-model.md).
GUIDANCE_INTERVAL: Final = (0.0, 0.85)

# How concepts are learned here: a fast value rate, which falls at the end, and a slow target, in as many steps as the
# paper's. Measured with the identity judge, the rates on a cat and a teapot against eleven other settings. At a rate
# that does not fall, much of the outcome is the seed's: the same cat was known in 7 to 10 of 24 pictures, not 13 to 15.
PERFUSION: Final = {
    "steps": 400,
    "batch_size": 8,
    "value_lr": 0.1,
    "embedding_lr": 0.006,
    "decay_share": 0.5,
    "target_input_decay": 0.999,
    "templates": ["{}", "a {}", "the {}", "a picture of a {}", "a cartoon of a {}"],
}

# How students are distilled here: the network is a hundredth of those in the papers, and takes five times their rate
# (at fifty times what the teacher knows is lost). With all of the guidance in matching, pictures of one prompt differ
# by .82 of the teacher's diversity, with a quarter of it by more, and follow their prompts as well.
DISTILLATION: Final = {
    "steps": 800,
    "batch_size": 32,
    "lr": 5e-5,
    "critic_lr": 5e-5,
    "critic_warmup": 60,
    "decay_share": 0.3,
    "guidance": GUIDANCE,
    "matching_guidance": 0.25,
    "ema": 0.995,
}


# By the student that lies beside the model where it ships.
PREVIEW: Final = {
    "student": "../storybook-student",
    "every": 50,
    "prompts": [
        "a {}",
        "a {} in the snow",
        "a {} on the beach",
        "a {} in the city at night",
        "a {} wearing a blue hat",
        "a pencil sketch of a {}",
        "a watercolor of a {}",
        "a {} and a green chair",
    ],
}


def write_facts(folder: Path, base: BaseModel, *, default_steps: int, default_guidance: float) -> None:
    """Write the facts beside the weights."""
    facts = {
        "name": "storybook",
        "family": "stable-diffusion",
        "size": base.native_size,
        "size_multiple": 8,
        "max_size": base.native_size,
        "superclasses": list(KINDS),
        "default_steps": default_steps,
        "default_guidance": default_guidance,
        "guidance_interval": GUIDANCE_INTERVAL,
        "default_key_lock": "local",
        "gate_bias": {"local": 0.6, "global": 0.5},
        "gate_temperature": 0.15,
        "concept_space": concept_space(base),
        "perfusion": PERFUSION,
        "preview": PREVIEW,
        "distillation": DISTILLATION,
        "default_pairs": 1024,  # half an hour of one CPU core
    }
    (folder / "lockstep.json").write_text(json.dumps(facts, indent=2) + "\n")
