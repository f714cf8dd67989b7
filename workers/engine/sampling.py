"""The reference sampler: deterministic DDIM with classifier-free guidance, 50 steps by convention.

Source: Song et al. 2021 (DDIM), Eq. (12) with eta = 0; Ho & Salimans 2022 (classifier-free guidance).
Symbols:  x_t latents (B, C, H, W);  a, a' = alphas_cumprod now and at the next, cleaner timestep
          x0_hat = x0_uncond + w (x0_cond - x0_uncond),  w guidance (B,), where the model's schedule lets it act
          x_t'   = sqrt(a') x0_hat + sqrt(1 - a') eps(x0_hat, x_t)

Guidance mixes x0 predictions; as x0 is affine in eps and in v at a given x_t, that equals mixing either of those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workers.engine.attention import Conditioning
from workers.engine.denoiser import Denoiser
from workers.engine.errors import Interrupted


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Draw unit noise (B, C, H, W), each sample from its own seed alone and on the CPU.

    So a seed means the same noise in any batch, in any place of it, and on any device.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample_ddim(
    denoiser: Denoiser,
    noise: Tensor,
    conditional: Conditioning,
    unconditional: Conditioning,
    *,
    steps: int,
    guidance: Sequence[float],
    on_step: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Tensor:
    """Denoise ``noise`` (B, C, H, W) to clean latents; each sample has its own guidance scale.

    A step at which every scale is 1 leaves the unconditional half out. ``should_stop`` is asked before every step and
    raises Interrupted.
    """
    schedule = denoiser.schedule
    scale = torch.tensor(guidance)  # (B,), on the CPU, where looking at it waits for nothing
    both = Conditioning.concatenate([unconditional, conditional])
    timesteps = schedule.sampling_timesteps(steps)
    x = schedule.start(noise, timesteps[0])
    cleaner = [float(schedule.alphas_cumprod[t]) for t in timesteps[1:]] + [schedule.final_alpha()]
    for index, (t, a_next) in enumerate(zip(timesteps, cleaner, strict=True)):
        if should_stop():
            raise Interrupted(index)
        weights = schedule.guidance(scale, torch.tensor(t))
        now = torch.full((len(x),), t, device=x.device)  # (B,)
        if bool((weights == 1).all()):
            x0 = denoiser.predict_x0(x, now, conditional)  # (B, C, H, W)
        else:
            x0_uncond, x0_cond = denoiser.predict_x0(torch.cat([x, x]), torch.cat([now, now]), both).chunk(2)
            x0 = x0_uncond + weights.to(x.device)[:, None, None, None] * (x0_cond - x0_uncond)
        eps = schedule.to_eps(x0, x, now)
        x = a_next**0.5 * x0 + (1 - a_next) ** 0.5 * eps
        on_step()
    return x
