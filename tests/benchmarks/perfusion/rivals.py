"""Perfusion's rivals on the same base: textual inversion, DreamBooth with LoRA, and Custom Diffusion.

Sources: Gal et al. 2022 (arXiv 2208.01618): one new word's embedding is learned, and nothing else.
         Ruiz et al. 2022 (DreamBooth, 2208.12242): weights are learned under a rare word beside the superclass, with
         the model's own pictures of the superclass to keep it; here as low-rank updates (Hu et al. 2021, 2106.09685),
         by PEFT.
         Kumari et al. 2022 (Custom Diffusion, 2212.04488): keys and values of the cross-attention and a new word.
Dimensions: B batch, n pictures, C x H x W latents, N token positions, D text encoder width

All minimise the denoising error of the same pictures, mirrored and worded alike, in as many samples as Perfusion takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tests.benchmarks.perfusion.personalised import FLOAT16_BYTES, Personalised
from tests.benchmarks.subjects import images
from workers.engine import attention
from workers.engine.attention import KeyValueProjections
from workers.engine.base_model import BaseModel
from workers.engine.denoiser import Denoiser
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.settings import falling_rate
from workers.engine.storybook.drawing import Drawing, draw
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.text import TextEncoder, Tower

WORD: Final = "xyzzy"  # that no caption holds
_PRIOR_PICTURES: Final = 32
_PRIOR_STEPS: Final = 25


@dataclass(frozen=True)
class RivalConfig:
    """How a rival learns; with ``prior``, half of every batch are the base model's own pictures of the superclass."""

    steps: int = 400
    batch_size: int = 8
    lr: float = 1e-3
    word_lr: float = 5e-3
    decay_share: float = 0.5
    rank: int = 4
    prior: bool = False


@dataclass(frozen=True)
class Lesson:
    """Pictures to learn from, as latents (n, C, H, W), and the prompts that may go with each of them."""

    latents: Tensor
    prompts: tuple[str, ...]


def textual_inversion(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn the embedding of one new word."""
    base, token = with_word(base, superclass)
    word = _word_of(base, token)
    lesson = Lesson(_latents(base, photos), _worded(base, WORD))
    _fit(base, _plain(base), [lesson], {"word": (word, config.lr)}, config, token=token, seed=seed)
    _keep_word(base, token, word)
    return Personalised(base, f"a {WORD}", word.numel() * FLOAT16_BYTES)


def dreambooth_lora(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn low-rank updates of the U-Net's attention under a rare word beside the superclass."""
    unet = _plain(base)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=targets))
    learned = {name: (tensor, config.lr) for name, tensor in unet.named_parameters() if tensor.requires_grad}
    size = sum(tensor.numel() for tensor, _ in learned.values())
    lessons = _lessons(base, photos, superclass, f"{WORD} {superclass}", config, seed=seed)
    _fit(base, unet, lessons, learned, config, token=None, seed=seed)
    unet.fuse_lora()
    unet.unload_lora()
    return Personalised(_with_unet(base, unet), f"a {WORD} {superclass}", size * FLOAT16_BYTES)


def custom_diffusion(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: RivalConfig, *, seed: int
) -> Personalised:
    """Learn all keys and values of the cross-attention and a new word beside the superclass."""
    plain, unet = base, _plain(base)
    base, token = with_word(base, superclass)
    word = _word_of(base, token)
    weights = {
        name: tensor.requires_grad_(True)
        for name, tensor in unet.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    learned = {name: (tensor, config.lr) for name, tensor in weights.items()} | {"word": (word, config.word_lr)}
    size = sum(tensor.numel() for tensor, _ in learned.values())
    lessons = _lessons(plain, photos, superclass, f"{WORD} {superclass}", config, seed=seed)
    _fit(base, unet, lessons, learned, config, token=token, seed=seed)
    _keep_word(base, token, word)
    return Personalised(_with_unet(base, unet), f"a {WORD} {superclass}", size * FLOAT16_BYTES)


def with_word(base: BaseModel, superclass: str) -> tuple[BaseModel, int]:
    """Return the model with one word more, which at first means what the superclass does, and the word's token."""
    (tower,) = base.text.towers
    tokenizer, model = copy.deepcopy(tower.tokenizer), copy.deepcopy(tower.model)
    tokenizer.add_tokens([WORD])
    token = int(tokenizer.convert_tokens_to_ids(WORD))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = model.get_input_embeddings().weight.requires_grad_(False)
    table[token] = table[base.text.tokens(superclass)[-1]]
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


def _latents(base: BaseModel, photos: Sequence[Image.Image]) -> Tensor:
    """Return the latents (2n, C, H, W) of pictures and their mirror images."""
    config = replace(base.perfusion, masked=False)
    return prepare_pictures(base, photos, "", config, seed=0).latents


def _worded(base: BaseModel, thing: str) -> tuple[str, ...]:
    return tuple(template.format(thing) for template in base.perfusion.templates)


def _lessons(
    base: BaseModel,
    photos: Sequence[Image.Image],
    superclass: str,
    thing: str,
    config: RivalConfig,
    *,
    seed: int,
) -> list[Lesson]:
    """Return what to learn and, if asked for, what not to forget."""
    own = Lesson(_latents(base, photos), _worded(base, thing))
    if not config.prior:
        return [own]
    count = min(_PRIOR_PICTURES, config.steps)  # a toy draws no more than it looks at
    drawn = draw(base, [f"a {superclass}"] * count, Drawing(_PRIOR_STEPS, GUIDANCE, first_seed=seed))
    return [own, Lesson(_latents(base, images(drawn)), _worded(base, superclass))]


def _fit(
    base: BaseModel,
    unet: UNet2DConditionModel,
    lessons: Sequence[Lesson],
    learned: Mapping[str, tuple[Tensor, float]],
    config: RivalConfig,
    *,
    token: int | None,
    seed: int,
) -> None:
    """Minimise the denoising error; a batch holds equal shares of the lessons. ``token`` is the learned word's."""
    generator, schedule = torch.Generator().manual_seed(seed), base.denoiser.schedule
    optimizer = torch.optim.AdamW([{"params": [tensor], "lr": lr} for tensor, lr in learned.values()], weight_decay=0)
    rates = [lr for _, lr in learned.values()]
    share = config.batch_size // len(lessons)
    word = learned["word"][0] if token is not None else None
    encode = _encoder(base.text, token, word)
    for step in range(config.steps):
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["lr"] = rate * falling_rate(step, config.steps, config.decay_share)
        drawn = [
            (
                lesson.latents[torch.randint(len(lesson.latents), (share,), generator=generator)],
                torch.randint(len(lesson.prompts), (share,), generator=generator).tolist(),
            )
            for lesson in lessons
        ]
        x0 = torch.cat([latents for latents, _ in drawn])  # (B, C, H, W)
        prompts = [lesson.prompts[k] for lesson, (_, ks) in zip(lessons, drawn, strict=True) for k in ks]
        timesteps = torch.randint(schedule.timesteps, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        noisy = schedule.add_noise(x0, noise, timesteps)
        output = unet(noisy, timesteps, encoder_hidden_states=encode(prompts)).sample
        optimizer.zero_grad()
        functional.mse_loss(output.float(), schedule.target(x0, noise, timesteps)).backward()
        optimizer.step()


def _encoder(text: TextEncoder, token: int | None, word: Tensor | None) -> Callable[[Sequence[str]], Tensor]:
    """Return what encodes prompts to (B, N, D), each only once, differentiably in the learned word."""

    def encode(prompts: Sequence[str]) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        rows = [text.row(text.tokens(prompt)) for prompt in distinct]
        places = {
            (k, position): [word]
            for k, row in enumerate(rows)
            for position, here in enumerate(row)
            if word is not None and here == token
        }
        return text.encode(rows, places)[[distinct.index(prompt) for prompt in prompts]]

    return encode
