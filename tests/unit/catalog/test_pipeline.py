"""What is read of a model from the configurations that diffusers wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.catalog.facts import read_facts

UNET = {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280]}
XL_UNET = {"sample_size": 128, "block_out_channels": [320, 640, 1280]}
VAE = {"block_out_channels": [128, 256, 512, 512]}
TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}


def folder(
    path: Path,
    scheduler: str = "PNDMScheduler",
    *,
    pipeline: str = "StableDiffusionPipeline",
    unet: dict[str, Any] = UNET,
    card: dict[str, Any] | None = None,
    **rules: Any,
) -> Path:
    """The files of a model that say how it is drawn with, and no weights."""
    files = {
        "model_index.json": {"_class_name": pipeline},
        "unet/config.json": unet,
        "vae/config.json": VAE,
        "scheduler/scheduler_config.json": {"_class_name": scheduler, **rules},
        **({} if card is None else {"lockstep.json": card}),
    }
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("pipeline", "unet", "family", "sizes"),
    [
        ("StableDiffusionPipeline", UNET, "stable-diffusion", (512, 64, 64, 1024)),
        ("StableDiffusionPipeline", UNET | {"sample_size": 96}, "stable-diffusion", (768, 64, 64, 1536)),
        ("StableDiffusionXLPipeline", XL_UNET, "stable-diffusion-xl", (1024, 32, 32, 2048)),
        ("StableDiffusionXLPipeline", XL_UNET | {"sample_size": 64}, "stable-diffusion-xl", (512, 32, 32, 1024)),
        ("LatentConsistencyModelPipeline", UNET | {"sample_size": 96}, "stable-diffusion", (768, 64, 64, 1536)),
    ],
)
def test_family_and_sizes_are_those_of_its_networks(tmp_path: Path, pipeline, unet, family, sizes):
    facts = read_facts(str(folder(tmp_path, pipeline=pipeline, unet=unet)))
    assert (facts.family, (facts.size, facts.size_multiple, facts.min_size, facts.max_size)) == (family, sizes)


@pytest.mark.parametrize(
    ("scheduler", "rules", "told"),  # guidance, steps and guidance by default, the most steps
    [
        ("PNDMScheduler", {}, ("classifier_free", 50, 6.0, 200)),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, ("classifier_free", 50, 6.0, 200)),
        ("EulerDiscreteScheduler", TRAILING, ("none", 1, 1.0, 200)),  # as SD-Turbo
        ("EulerAncestralDiscreteScheduler", TRAILING, ("none", 1, 1.0, 200)),  # as SDXL-Turbo
        ("EulerDiscreteScheduler", {**TRAILING, "rescale_betas_zero_snr": True}, ("classifier_free", 50, 6.0, 200)),
        ("DDIMScheduler", TRAILING, ("classifier_free", 50, 6.0, 200)),
        ("LCMScheduler", {"original_inference_steps": 40}, ("none", 4, 1.0, 40)),
    ],
)
def test_steps_and_guidance_are_those_of_its_scheduler(tmp_path: Path, scheduler, rules, told):
    facts = read_facts(str(folder(tmp_path, scheduler, **rules)))
    assert (facts.guidance, facts.default_steps, facts.default_guidance, facts.max_steps) == told


def test_a_network_that_reads_its_guidance_says_so(tmp_path: Path):
    facts = read_facts(str(folder(tmp_path, "LCMScheduler", unet=UNET | {"time_cond_proj_dim": 256})))
    assert (facts.guidance, facts.default_steps, facts.default_guidance, facts.max_steps) == ("embedded", 4, 8.5, 50)


def test_what_its_own_file_says_comes_first(tmp_path: Path):
    turbo = folder(tmp_path, "EulerDiscreteScheduler", **TRAILING, card={"name": "quick", "default_steps": 2})
    facts = read_facts(str(turbo))
    assert (facts.name, facts.guidance, facts.default_steps) == ("quick", "none", 2)
    (turbo / "lockstep.json").write_text(json.dumps({"guidance": "classifier_free"}))
    facts = read_facts(str(turbo))
    assert (facts.guidance, facts.default_steps, facts.default_guidance) == ("classifier_free", 50, 6.0)


def test_the_files_of_a_hub_id_may_lie_elsewhere(tmp_path: Path):
    facts = read_facts("org/Some-XL", folder(tmp_path, pipeline="StableDiffusionXLPipeline", unet=XL_UNET))
    assert (facts.name, facts.family, facts.size) == ("some-xl", "stable-diffusion-xl", 1024)


@pytest.mark.parametrize(
    ("card", "detail"),
    [
        ({"max_size": 2048}, "from 64 to 1024"),
        ({"min_size": 8}, "from 64 to 1024"),
        ({"size": 520}, "520"),
        ({"size": 1024, "max_size": 768}, "1024"),
        ({"guidance": "some"}, "guidance"),
    ],
)
def test_a_model_that_promises_what_cannot_be_drawn_stops_the_start(tmp_path: Path, card, detail):
    with pytest.raises(ValueError, match=detail):
        read_facts(str(folder(tmp_path, card=card)))
