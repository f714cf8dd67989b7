"""What a diffusers folder tells of how its model is drawn with, by the configurations of its parts alone.

The engine reads the same files with the networks (``workers/engine/family.py``) and comes to the same answers; here
they are needed where there is no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# What `describe` reads of a folder, and so what has to be fetched of a hub id.
CONFIGURATIONS = ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")

_FAMILIES = {
    "StableDiffusionPipeline": "stable-diffusion",
    "LatentConsistencyModelPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
}
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
_LCM = "LCMScheduler"

# By what a model does with guidance, where its folder does not say how it is drawn with. An embedded one's are those of
# diffusers' pipeline for latent consistency models, the others' those of the models' authors.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "classifier_free": {},
    "embedded": {"default_steps": 4, "default_guidance": 8.5},
    "none": {"default_steps": 1, "default_guidance": 1.0},
}


def describe(folder: Path, *, guidance: object = None) -> dict[str, Any]:
    """Those of `ModelFacts` that the folder's configurations tell; ``guidance`` is what it says of it elsewhere."""
    index, unet, vae, scheduler = (read_json(folder / name) for name in CONFIGURATIONS)
    facts: dict[str, Any] = {}
    if (family := _FAMILIES.get(str(index.get("_class_name")))) is not None:
        facts["family"] = family
    told = str(guidance or _guidance(unet, scheduler))
    facts |= {"guidance": told, **_DEFAULTS.get(told, {})}
    if scheduler.get("_class_name") == _LCM:
        facts |= {"default_steps": 4, "max_steps": int(scheduler.get("original_inference_steps", 50))}
    return facts | _sizes(unet, vae)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    read: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return read


def _guidance(unet: dict[str, Any], scheduler: dict[str, Any]) -> str:
    """What the model does with guidance.

    Adversarially distilled models (Sauer et al. 2023, arXiv 2311.17042) ship one of Euler's schedulers with trailing
    timesteps. So do models whose schedule ends in pure noise (Lin et al. 2023), and those say so.
    """
    if unet.get("time_cond_proj_dim") is not None:
        return "embedded"
    is_euler = scheduler.get("_class_name") in _EULER and scheduler.get("timestep_spacing") == "trailing"
    is_turbo = is_euler and not scheduler.get("rescale_betas_zero_snr")
    return "none" if is_turbo or scheduler.get("_class_name") == _LCM else "classifier_free"


def _sizes(unet: dict[str, Any], vae: dict[str, Any]) -> dict[str, int]:
    """Sides in pixels: what it was trained on, whole cells on the coarsest level, and what the engine draws at all."""
    cells, levels, blocks = (
        unet.get("sample_size"),
        unet.get("block_out_channels"),
        vae.get("block_out_channels") or vae.get("decoder_block_out_channels"),
    )
    if not isinstance(cells, int) or not levels or not blocks:
        return {}
    factor = 1 << (len(blocks) - 1)
    size, coarsest = cells * factor, factor << (len(levels) - 1)
    return {"size": size, "size_multiple": coarsest, "min_size": coarsest, "max_size": 2 * size}
