"""What others do to serve eight customers' adapters: diffusers with LoRA by PEFT, on the same student.

Every adapter has rank 4 on all attention projections, as DreamBooth with LoRA trains them. diffusers' pipeline draws
one request at a time, as its adapters hold for a whole batch; PEFT alone can mix them in a batch (``adapter_names``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from PIL import Image

from tests.benchmarks.serving.setup import SCENES

_RANK = 4
_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class LoraPipeline:
    """The pipeline with nothing loaded, one with all adapters resident, and a U-Net that mixes them."""

    bare: StableDiffusionPipeline
    resident: StableDiffusionPipeline
    mixing: PeftModel
    files: Sequence[Path]
    names: Sequence[str]
    prompts: Sequence[str]

    @classmethod
    def open(cls, student: Path, folder: Path, count: int) -> LoraPipeline:
        """Write ``count`` random adapters and load them as each way of serving wants them."""
        names = [f"adapter_{number}" for number in range(count)]
        files = [_write_adapter(student, folder / name, seed) for seed, name in enumerate(names)]
        resident = _pipeline(student)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several is what is wanted
            for name, file in zip(names, files, strict=True):
                resident.load_lora_weights(file, adapter_name=name)
        config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS, init_lora_weights=False)
        mixing = get_peft_model(_pipeline(student).unet, config, adapter_name=names[0])
        for name in names[1:]:
            mixing.add_adapter(name, config)
        prompts = [f"a cat {scene}".strip() for scene in SCENES[:count]]
        return cls(_pipeline(student), resident, mixing.eval(), files, names, prompts)

    def draw_loading(self) -> list[Image.Image]:
        """Load each request's adapter from its file, draw, and unload it."""
        pictures = []
        for prompt, file in zip(self.prompts, self.files, strict=True):
            self.bare.load_lora_weights(file)
            pictures += _draw(self.bare, prompt)
            self.bare.unload_lora_weights()
        return pictures

    def draw_switching(self) -> list[Image.Image]:
        """Have all adapters in memory and switch to each request's."""
        pictures = []
        for prompt, name in zip(self.prompts, self.names, strict=True):
            self.resident.set_adapters(name)
            pictures += _draw(self.resident, prompt)
        return pictures

    @torch.inference_mode()
    def draw_together(self) -> list[Image.Image]:
        """Draw one batch in which every sample has an adapter of its own."""
        pipe = self.bare
        told, _ = pipe.encode_prompt(list(self.prompts), "cpu", 1, do_classifier_free_guidance=False)  # (B, N, D)
        shape = (len(self.prompts), pipe.unet.config.in_channels, pipe.unet.config.sample_size)
        noise = torch.randn((*shape, shape[-1]), generator=torch.Generator().manual_seed(0))  # (B, C, H, W)
        pipe.scheduler.set_timesteps(1)
        (t,) = pipe.scheduler.timesteps
        output = self.mixing(noise, t, encoder_hidden_states=told, adapter_names=list(self.names)).sample
        latents = pipe.scheduler.step(output, t, noise).prev_sample
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        pictures: list[Image.Image] = pipe.image_processor.postprocess(pixels)
        return pictures


def _pipeline(student: Path) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(student, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _write_adapter(student: Path, folder: Path, seed: int) -> Path:
    unet = _pipeline(student).unet
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS, init_lora_weights=False)
        unet.add_adapter(config)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder


def _draw(pipe: Any, prompt: str) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    pictures: list[Image.Image] = pipe(prompt, num_inference_steps=1, guidance_scale=1.0, generator=generator).images
    return pictures
