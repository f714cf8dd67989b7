"""The schedule of a base model, of noise and of guidance, and the algebra between what networks predict.

Source: Ho et al. 2020 (DDPM); Salimans & Ho 2022 for v; Lin et al. 2023 for zero terminal SNR and the spacings;
        Kynkaanniemi et al. 2024 (arXiv 2404.07724) for guidance in an interval.
Symbols:  x0 clean latents (B, C, H, W)    eps unit noise    a = alphas_cumprod[t]    T training timesteps
          x_t = sqrt(a) x0 + sqrt(1 - a) eps          v = sqrt(a) eps - sqrt(1 - a) x0
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from workers.engine.errors import ModelUnsupported, SettingsInvalid


class Prediction(StrEnum):
    """What the U-Net outputs."""

    EPSILON = "epsilon"
    V = "v_prediction"
    X0 = "sample"


@dataclass(frozen=True)
class NoiseSchedule:
    """``alphas_cumprod`` (T,) in float32 with the rules that a model folder's scheduler states.

    Guidance acts from one share of the timesteps to another, the noisier end left out. Near pure noise it picks the
    layout that most pictures have, and so costs variety.
    """

    alphas_cumprod: Tensor
    prediction: Prediction
    scheduler: DDIMScheduler
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, scheduler: DDIMScheduler, guidance_interval: tuple[float, float] = (0.0, 1.0)) -> NoiseSchedule:
        """Read the schedule of a diffusers scheduler; raises ModelUnsupported for an unknown prediction type."""
        try:
            prediction = Prediction(scheduler.config.prediction_type)
        except ValueError as error:
            raise ModelUnsupported(f"prediction type {scheduler.config.prediction_type!r} is not known") from error
        return cls(scheduler.alphas_cumprod.float(), prediction, scheduler, guidance_interval)

    @property
    def timesteps(self) -> int:
        """T: timesteps run from 0 (clean) to T - 1 (noise)."""
        return len(self.alphas_cumprod)

    def sampling_timesteps(self, steps: int) -> list[int]:
        """Return ``steps`` timesteps, noisy to clean, spaced as the model's scheduler says."""
        if not 1 <= steps <= self.timesteps:
            raise SettingsInvalid(f"steps must be from 1 to {self.timesteps}, not {steps}")
        self.scheduler.set_timesteps(steps)
        timesteps: list[int] = self.scheduler.timesteps.tolist()
        return timesteps

    def final_alpha(self) -> float:
        """Return the a that sampling ends at: 1, or the first timestep's where the scheduler says so."""
        return float(self.scheduler.final_alpha_cumprod)

    def guidance(self, scale: Tensor, timesteps: Tensor) -> Tensor:
        """Return the guidance scale (B,) at timesteps (B,) or at one of them: at most 1 where guidance does not act."""
        least, most = (share * self.timesteps for share in self.guidance_interval)
        acts = (timesteps >= least) & (timesteps < most)
        return torch.where(acts, scale, scale.clamp(max=1))

    def alphas(self, timesteps: Tensor) -> Tensor:
        """Return a for timesteps (B,), shaped (B, 1, 1, 1)."""
        return self.alphas_cumprod.to(timesteps.device)[timesteps][:, None, None, None]

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t."""
        a = self.alphas(timesteps)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a perfect network would output at x_t."""
        a = self.alphas(timesteps)
        match self.prediction:
            case Prediction.EPSILON:
                return noise
            case Prediction.V:
                return a.sqrt() * noise - (1 - a).sqrt() * x0
            case Prediction.X0:
                return x0

    def to_x0(self, output: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Turn the network's output at x_t into the clean latents it implies."""
        a = self.alphas(timesteps)
        match self.prediction:
            case Prediction.EPSILON:
                return (x_t - (1 - a).sqrt() * output) / a.sqrt()
            case Prediction.V:
                return a.sqrt() * x_t - (1 - a).sqrt() * output
            case Prediction.X0:
                return output

    def to_eps(self, x0: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise that ``x0`` implies at x_t."""
        a = self.alphas(timesteps)
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt()
