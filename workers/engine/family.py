"""The shapes of base model that are served, and what a folder says of its own in ``model_index.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from workers.engine.denoiser import Denoiser
from workers.engine.dmd.config import DistillationConfig
from workers.engine.errors import ModelUnreadable, ModelUnsupported
from workers.engine.schedule import Solver
from workers.engine.text import TextEncoder, Tower

_PIPELINES: Final = {
    "StableDiffusionPipeline": {"text_encoder": "CLIPTextModel"},
    "LatentConsistencyModelPipeline": {"text_encoder": "CLIPTextModel"},
    "StableDiffusionXLPipeline": {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
}
_VAES: Final = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_TIME_IDS: Final = 6  # original size, corner of the crop, target size


class Guidance(StrEnum):
    """What a model does with guidance."""

    CLASSIFIER_FREE = "classifier_free"  # predicts with and without the prompt, and mixes
    EMBEDDED = "embedded"  # reads the scale in its network
    NONE = "none"  # has it built in: a request's must be 1

    @classmethod
    def of(cls, denoiser: Denoiser, said: object) -> Guidance:
        """What a model does whose lockstep.json says ``said``, or nothing; raises ModelUnreadable where it cannot."""
        few_steps = denoiser.schedule.solver is Solver.LCM
        if denoiser.reads_guidance:
            own = cls.EMBEDDED
        else:
            own = cls.NONE if few_steps or denoiser.schedule.is_turbo else cls.CLASSIFIER_FREE
        is_free = own is not cls.EMBEDDED and not few_steps
        if said not in ((None, "classifier_free", "none") if is_free else (None, own.value)):
            raise ModelUnreadable(f"guidance: {own.value!r} is what the model's networks are made for, not {said!r}")
        return own if said is None else cls(str(said))

    def default_drawing(self, denoiser: Denoiser) -> dict[str, object]:
        """Steps and guidance of a model that is drawn in few steps, as lockstep.json names them.

        One step is what Turbo models were shown with; the others are diffusers' for latent consistency models.
        """
        match self:
            case Guidance.EMBEDDED:
                return {"default_steps": 4, "default_guidance": 8.5}
            case Guidance.NONE:
                steps = 4 if denoiser.schedule.solver is Solver.LCM else 1
                return {"default_steps": steps, "default_guidance": 1.0}
            case Guidance.CLASSIFIER_FREE:
                return {}


@dataclass(frozen=True)
class Family:
    """Stable Diffusion 1.x/2.x, or SDXL with its two text towers, its pooled prompt and its sizes."""

    is_xl: bool
    blank_is_zero: bool
    vae: type[AutoencoderKL] | type[AutoencoderTiny]

    @classmethod
    def of(cls, index: Mapping[str, object]) -> Family:
        """Read a model's ``model_index.json``; raises ModelUnsupported for another family or other parts."""
        pipeline = str(index.get("_class_name"))
        if pipeline not in _PIPELINES:
            raise ModelUnsupported(f"family {pipeline!r}; {', '.join(_PIPELINES)} are served")
        for part, expected in {**_PIPELINES[pipeline], "unet": "UNet2DConditionModel"}.items():
            if _class_of(index, part) != expected:
                raise ModelUnsupported(f"{part} is a {_class_of(index, part)!r}; a {expected} is served")
        vae = _class_of(index, "vae")
        if vae not in _VAES:
            raise ModelUnsupported(f"vae is a {vae!r}; {' and '.join(_VAES)} are served")
        is_xl = "text_encoder_2" in _PIPELINES[pipeline]
        blank_is_zero = is_xl and index.get("force_zeros_for_empty_prompt", True) is True  # diffusers' own default
        return cls(is_xl, blank_is_zero, _VAES[vae])

    @property
    def distillation(self) -> DistillationConfig:
        """How students are distilled where the model's folder does not say.

        Told the last timestep, one-step students of SDXL leave blocks of noise in their pictures. So they are told an
        earlier one, though what they start from is pure noise all the same (DMD2, arXiv 2405.14867, its shift).
        """
        return DistillationConfig(student_timesteps=(399,)) if self.is_xl else DistillationConfig()

    def text_encoder(self, folder: Path) -> TextEncoder:
        """Open the text side of a model; raises what transformers does, and ModelUnsupported."""
        first = _tower(folder, "", CLIPTextModel, penultimate=self.is_xl)
        if not self.is_xl:
            return TextEncoder(first)
        second = _tower(folder, "_2", CLIPTextModelWithProjection, penultimate=True)
        return TextEncoder(first, second, blank_is_zero=self.blank_is_zero)

    def check(self, text: TextEncoder, unet: UNet2DConditionModel) -> None:
        """Raise ModelUnsupported where the U-Net listens to something else than this text encoder says."""
        config = unet.config
        if config.cross_attention_dim != text.width:
            raise ModelUnsupported(f"the U-Net reads encodings {config.cross_attention_dim} wide, not {text.width}")
        if config.addition_embed_type != ("text_time" if self.is_xl else None):
            raise ModelUnsupported(f"the U-Net is told {config.addition_embed_type!r} beside the text")
        if self.is_xl:
            pooled = int(text.towers[-1].model.config.projection_dim)
            told = pooled + _TIME_IDS * int(config.addition_time_embed_dim)
            if config.projection_class_embeddings_input_dim != told:
                raise ModelUnsupported(f"the U-Net is not told a pooled prompt {pooled} wide and {_TIME_IDS} sizes")


def _tower(
    folder: Path,
    suffix: str,
    model_class: type[CLIPTextModel] | type[CLIPTextModelWithProjection],
    *,
    penultimate: bool,
) -> Tower:
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=f"tokenizer{suffix}")
    model = model_class.from_pretrained(
        folder, subfolder=f"text_encoder{suffix}", dtype=torch.float32, use_safetensors=True
    )
    return Tower(tokenizer, model, penultimate)


def _class_of(index: Mapping[str, object], part: str) -> str:
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else str(entry)
