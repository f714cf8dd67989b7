"""Perfusion's rivals on the same base: textual inversion, DreamBooth with LoRA, and Custom Diffusion.

Sources: Gal et al. 2022 (arXiv 2208.01618): one new word's embedding is learned, which starts from the superclass's,
         and nothing else.
         Ruiz et al. 2022 (DreamBooth, 2208.12242): weights are learned under a rare word beside the superclass, with
         the model's own pictures of the superclass to keep it; the word's embedding stays as it is. Here the weights
         are low-rank updates (Hu et al. 2021, 2106.09685), by PEFT.
         Kumari et al. 2022 (Custom Diffusion, 2212.04488): keys and values of the cross-attention, and a new word
         beside the superclass that starts from a rare one's embedding. Left out: pictures of random scale, worded
         accordingly ("zoomed in", "far away"), as neither these words nor that cropping are known to the base model.
Dimensions: B batch, n pictures, C x H x W latents, N token positions, D text encoder width

All minimise the denoising error of the same pictures, mirrored and worded alike, in as many samples as Perfusion takes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from tests.benchmarks.perfusion.fitting import Lesson, RivalConfig, fit, latents_of, lessons, worded
from tests.benchmarks.perfusion.personalised import FLOAT16_BYTES, Personalised
from tests.benchmarks.perfusion.prompts import called
from workers.engine import attention
from workers.engine.attention import KeyValueProjections
from workers.engine.base_model import BaseModel
from workers.engine.denoiser import Denoiser
from workers.engine.text import TextEncoder, Tower

RARE: Final = "q"  # a token by itself that no caption holds, as "sks" is to Stable Diffusion
WORD: Final = "xyzzy"  # becomes a token by itself where it is learned


def textual_inversion(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn the embedding of one new word."""
    base, token = with_word(base, superclass)
    word = _word_of(base, token)
    lesson = Lesson(latents_of(base, photos), worded(base, WORD))
    fit(base, _plain(base), [lesson], {"word": (word, config.lr)}, config, token=token, seed=seed)
    _keep_word(base, token, word)
    return Personalised(base, called(WORD, superclass), word.numel() * FLOAT16_BYTES)


def dreambooth_lora(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn low-rank updates of the U-Net's attention under a rare word beside the superclass."""
    unet, thing = _plain(base), f"{RARE} {superclass}"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=targets))
    learned = {name: (tensor, config.lr) for name, tensor in unet.named_parameters() if tensor.requires_grad}
    size = sum(tensor.numel() for tensor, _ in learned.values())
    shown = lessons(base, photos, superclass, thing, config)
    fit(base, unet, shown, learned, config, token=None, seed=seed)
    unet.fuse_lora()
    unet.unload_lora()
    return Personalised(_with_unet(base, unet), called(thing, superclass), size * FLOAT16_BYTES)


def custom_diffusion(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn all keys and values of the cross-attention and a new word beside the superclass."""
    unet, thing = _plain(base), f"{WORD} {superclass}"
    shown = lessons(base, photos, superclass, thing, config)
    base, token = with_word(base, RARE)
    word = _word_of(base, token)
    weights = {
        name: tensor.requires_grad_(True)
        for name, tensor in unet.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    learned = {name: (tensor, config.lr) for name, tensor in weights.items()} | {"word": (word, config.word_lr)}
    size = sum(tensor.numel() for tensor, _ in learned.values())
    fit(base, unet, shown, learned, config, token=token, seed=seed)
    _keep_word(base, token, word)
    return Personalised(_with_unet(base, unet), called(thing, superclass), size * FLOAT16_BYTES)


def with_word(base: BaseModel, like: str) -> tuple[BaseModel, int]:
    """Return the model with one word more, which at first means what another does, and the new word's token."""
    (tower,) = base.text.towers
    tokenizer, model = copy.deepcopy(tower.tokenizer), copy.deepcopy(tower.model)
    tokenizer.add_tokens([WORD])
    token = int(tokenizer.convert_tokens_to_ids(WORD))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = model.get_input_embeddings().weight.requires_grad_(False)
    table[token] = table[base.text.tokens(like)[-1]]
    return replace(base, text=TextEncoder(Tower(tokenizer, model, tower.penultimate))), token


def _word_of(base: BaseModel, token: int) -> Tensor:
    (word,) = base.text.token_embeddings(token)
    return word.requires_grad_(True)  # (D,)


def _keep_word(base: BaseModel, token: int, word: Tensor) -> None:
    (tower,) = base.text.towers
    tower.model.get_input_embeddings().weight[token] = word.detach()


def _plain(base: BaseModel) -> UNet2DConditionModel:
    """Return a copy of the U-Net that reads encodings, as diffusers made it."""
    unet = copy.deepcopy(base.denoiser.unet).requires_grad_(False)
    unet.set_attn_processor(AttnProcessor2_0())
    return unet


def _with_unet(base: BaseModel, unet: UNet2DConditionModel) -> BaseModel:
    unet.requires_grad_(False)
    projections = KeyValueProjections.of(unet)
    attention.install(unet, projections)
    return replace(base, denoiser=Denoiser(unet, base.denoiser.schedule), projections=projections)
