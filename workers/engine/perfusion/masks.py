"""Where in a training picture the thing is: soft masks from the base model's own cross-attention.

Source: the Perfusion paper weighs its loss by a soft zero-shot mask (p. 9) from a segmentation network. Here the base
model answers itself: it is shown the noised picture with the superclass word in the prompt, and every position says
how much it looks at that word (the reading of cross-attention is Hertz et al. 2022's, prompt-to-prompt). No extra
network, and it works for any word the base model knows.

Dimensions:  n pictures, C x H x W latents (square), N token positions, P_l positions of layer l's feature map
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.attention import AttentionMaps
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.perfusion.tokens import superclass_tokens, tokenize

_NOISE_LEVEL = 0.5  # of the timesteps: the layout is decided there, and the word is still listened to
_DRAWS = 8  # of noise; the average is smoother than any one of them
_FLOOR = 0.05  # what the loss still counts outside the thing, so that no picture is left without any weight


@torch.no_grad()
def attention_masks(base: BaseModel, latents: Tensor, superclass: str, *, template: str, seed: int) -> Tensor:
    """Return masks (n, 1, H, W) from _FLOOR to 1 for latents (n, C, H, W)."""
    tokens = superclass_tokens(base.text, superclass)
    row = tokenize(base.text, template.format("<thing>"), {"thing": tokens}, {"thing"})
    conditioning = base.conditioner.condition([Prompt(template.format(superclass))])
    weights = torch.zeros(1, base.text.length, device=base.device)  # (1, N)
    weights[0, row.at("thing")] = 1
    every = torch.zeros(len(latents), dtype=torch.long, device=base.device)  # the one prompt, for each picture
    timesteps = torch.full((len(latents),), int(base.denoiser.schedule.timesteps * _NOISE_LEVEL), device=base.device)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(latents[:, :1])  # (n, 1, H, W)
    for _ in range(_DRAWS):
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        maps = AttentionMaps(weights)
        noisy = base.denoiser.schedule.add_noise(latents, noise, timesteps)
        base.denoiser.output(noisy, timesteps, conditioning.select(every), maps)
        total += _average(maps, latents.shape[-1])
    return _contrasted(total).clamp_min(_FLOOR)


def _contrasted(attention: Tensor) -> Tensor:
    """Stretch each picture's map (n, 1, H, W) from 0 to 1 and square it.

    Attention never falls to zero, so a map merely divided by its maximum weighs the background almost as much as the
    thing. On the bundled model a thing that fills a quarter of the picture gets 31 % of such a map's weight, 45 % of a
    stretched one's and 62 % of a squared one's, and the loss on unseen pictures of the thing falls in the same order.
    """
    lowest = attention.amin((1, 2, 3), keepdim=True)
    stretched = (attention - lowest) / (attention.amax((1, 2, 3), keepdim=True) - lowest).clamp_min(1e-12)
    return stretched.square()


def _average(maps: AttentionMaps, side: int) -> Tensor:
    """Bring every layer's map (n, P_l) to the latents' size and average them to (n, 1, H, W)."""
    squares = []
    for flat in maps.maps:
        layer_side = round(flat.shape[1] ** 0.5)
        square = flat.float().reshape(-1, 1, layer_side, layer_side)  # (n, 1, h_l, w_l)
        squares.append(F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False))
    return torch.stack(squares).mean(0)
