"""How models draw that were distilled to few steps elsewhere: Turbo models and latent consistency models.

Their guidance is built in, or told to the network, so that a step asks the network once. Between steps fresh noise may
take the place of what the network saw in the latents: each sample's from its own seed alone.

Source: Song et al. 2021 (DDIM), Eq. (12) and (16); with eta = 1 it is Euler's ancestral step (Karras et al. 2022).
        Luo et al. 2023 (arXiv 2310.04378, latent consistency models) and Song et al. 2023 (arXiv 2303.01469), App. C.
Symbols:  x_t latents (B, C, H, W);  a, a' = alphas_cumprod now and at the next timestep;  z fresh unit noise
          f = c_out x0_hat + c_skip x_t              what a consistency model sees; x0_hat itself for others
          x_t' = sqrt(a') f + kept eps(x0_hat, x_t) + fresh z,   kept^2 + fresh^2 = 1 - a'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.attention import Conditioning
from workers.engine.denoiser import Denoiser
from workers.engine.errors import Interrupted
from workers.engine.schedule import NoiseSchedule, Solver

_SIGMA_DATA = 0.5  # of Song et al. 2023


@dataclass(frozen=True)
class _Step:
    """Where one step is, and what the next one starts from."""

    timestep: int
    skip: float  # c_skip,
    out: float  # and c_out
    signal: float  # sqrt(a')
    kept: float
    fresh: float


def noises_due(schedule: NoiseSchedule, steps: int) -> int:
    """How many noises `sample_few_steps` wants: the start, and one for each later step that adds fresh noise."""
    return steps if schedule.solver in (Solver.EULER_ANCESTRAL, Solver.LCM) else 1


@torch.no_grad()
def sample_few_steps(
    denoiser: Denoiser,
    noises: Tensor,
    conditioning: Conditioning,
    *,
    steps: int,
    guidance: Tensor,
    on_step: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Tensor:
    """Denoise ``noises`` (k, B, C, H, W; k as of `noises_due`) to clean latents (B, C, H, W).

    The first noise is the start; each other one is the fresh noise of a step. ``guidance`` (B,) is told to a network
    that reads it and means nothing to others. ``should_stop`` is asked before every step and raises Interrupted.
    """
    schedule = denoiser.schedule
    plan = _plan(schedule, steps)
    x, fresh = schedule.start(noises[0], plan[0].timestep), iter(noises[1:])
    told = guidance.to(x.device) if denoiser.reads_guidance else None
    for index, step in enumerate(plan):
        if should_stop():
            raise Interrupted(index)
        now = torch.full((len(x),), step.timestep, device=x.device)  # (B,)
        x0 = denoiser.predict_x0(x, now, conditioning, told)  # (B, C, H, W)
        seen = step.out * x0 + step.skip * x
        kept = step.kept * schedule.to_eps(x0, x, now)
        x = step.signal * seen + kept
        if step.fresh:
            x = x + step.fresh * next(fresh)
        on_step()
    return x


def _plan(schedule: NoiseSchedule, steps: int) -> list[_Step]:
    """Return the steps, noisy to clean; raises SettingsInvalid for a number that the model does not draw in."""
    timesteps = schedule.sampling_timesteps(steps)
    alphas = [float(schedule.alphas_cumprod[t]) for t in timesteps] + [schedule.final_alpha()]
    return [
        _step(schedule, timestep, a, a_next) for timestep, a, a_next in zip(timesteps, alphas, alphas[1:], strict=False)
    ]


def _step(schedule: NoiseSchedule, timestep: int, a: float, a_next: float) -> _Step:
    noise = 1 - a_next  # the variance of the next step's noise
    match schedule.solver:
        case Solver.LCM:
            skip, out = _boundary(timestep * float(schedule.scheduler.config.timestep_scaling))
            return _Step(timestep, skip, out, a_next**0.5, kept=0.0, fresh=noise**0.5)
        case Solver.EULER_ANCESTRAL:
            fresh = noise / (1 - a) * (1 - a / a_next)
            return _Step(timestep, 0.0, 1.0, a_next**0.5, kept=(noise - fresh) ** 0.5, fresh=fresh**0.5)
        case _:
            return _Step(timestep, 0.0, 1.0, a_next**0.5, kept=noise**0.5, fresh=0.0)


def _boundary(scaled: float) -> tuple[float, float]:
    """Return c_skip and c_out at a scaled timestep: at 0 the model is the identity, whatever its network says."""
    spread = scaled**2 + _SIGMA_DATA**2
    return _SIGMA_DATA**2 / spread, scaled / spread**0.5
