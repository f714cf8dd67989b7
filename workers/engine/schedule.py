"""The schedule of a base model, of noise and of guidance, and the algebra between what networks predict.

Source: Ho et al. 2020 (DDPM); Salimans & Ho 2022 for v; Lin et al. 2023 for zero terminal SNR and the spacings;
        Kynkaanniemi et al. 2024 (arXiv 2404.07724) for guidance in an interval; Sauer et al. 2023 (arXiv 2311.17042)
        for Turbo models.
Symbols:  x0 clean latents (B, C, H, W)    eps unit noise    a = alphas_cumprod[t]    T training timesteps
          x_t = sqrt(a) x0 + sqrt(1 - a) eps          v = sqrt(a) eps - sqrt(1 - a) x0
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from diffusers import DDIMScheduler, LCMScheduler
from torch import Tensor

from workers.engine.errors import ModelUnsupported, SettingsInvalid


class Prediction(StrEnum):
    """What the U-Net outputs."""

    EPSILON = "epsilon"
    V = "v_prediction"
    X0 = "sample"


class Solver(StrEnum):
    """Whose steps a model is drawn in: its folder's scheduler, or DDIM in place of one that is not listed here.

    In unit-variance terms Euler's steps are DDIM's. They differ in where they start and end.
    """

    DDIM = "DDIMScheduler"
    EULER = "EulerDiscreteScheduler"
    EULER_ANCESTRAL = "EulerAncestralDiscreteScheduler"
    LCM = "LCMScheduler"

    @property
    def is_euler(self) -> bool:
        """Whether noise is told by its standard deviation, which ends at zero."""
        return self in (Solver.EULER, Solver.EULER_ANCESTRAL)


@dataclass(frozen=True)
class NoiseSchedule:
    """``alphas_cumprod`` (T,) in float32 with the rules that a model folder's scheduler states.

    Guidance acts from one share of the timesteps to another, the noisier end left out. Near pure noise it picks the
    layout that most pictures have, and so costs variety.
    """

    alphas_cumprod: Tensor
    prediction: Prediction
    scheduler: DDIMScheduler | LCMScheduler
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    solver: Solver = Solver.DDIM

    @classmethod
    def load(cls, folder: Path, guidance_interval: tuple[float, float]) -> NoiseSchedule:
        """Open the scheduler of a diffusers folder; raises as `of` does, and what diffusers does."""
        said = DDIMScheduler.load_config(folder, subfolder="scheduler")
        names = {solver.value for solver in Solver}
        solver = Solver(said["_class_name"]) if said.get("_class_name") in names else Solver.DDIM
        scheduler_class = LCMScheduler if solver is Solver.LCM else DDIMScheduler
        return cls.of(scheduler_class.from_config(said), guidance_interval, solver)

    @classmethod
    def of(
        cls,
        scheduler: DDIMScheduler | LCMScheduler,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        solver: Solver = Solver.DDIM,
    ) -> NoiseSchedule:
        """Read the schedule of a diffusers scheduler; raises ModelUnsupported for an unknown prediction type."""
        try:
            prediction = Prediction(scheduler.config.prediction_type)
        except ValueError as error:
            raise ModelUnsupported(f"prediction type {scheduler.config.prediction_type!r} is not known") from error
        return cls(scheduler.alphas_cumprod.float(), prediction, scheduler, guidance_interval, solver)

    @property
    def timesteps(self) -> int:
        """T: timesteps run from 0 (clean) to T - 1 (noise)."""
        return len(self.alphas_cumprod)

    @property
    def is_turbo(self) -> bool:
        """Whether this is how adversarially distilled models ship: Euler's steps at trailing timesteps.

        Other models have those where their schedule ends in pure noise (Lin et al. 2023).
        """
        config = self.scheduler.config
        return self.solver.is_euler and config.timestep_spacing == "trailing" and not config.rescale_betas_zero_snr

    @property
    def most_steps(self) -> int:
        """How many steps it can be drawn in; a consistency model knows no more timesteps than it was distilled at."""
        return int(self.scheduler.config.original_inference_steps) if self.solver is Solver.LCM else self.timesteps

    def sampling_timesteps(self, steps: int) -> list[int]:
        """Return ``steps`` timesteps, noisy to clean, spaced as the model's scheduler says."""
        if not 1 <= steps <= self.most_steps:
            raise SettingsInvalid(f"steps must be from 1 to {self.most_steps}, not {steps}")
        self.scheduler.set_timesteps(steps)
        timesteps: list[int] = self.scheduler.timesteps.tolist()
        return timesteps

    def start(self, noise: Tensor, timestep: int) -> Tensor:
        """Return what sampling starts from at a timestep: unit noise, or by Euler's rules its share of x_t."""
        if not self.solver.is_euler or self.scheduler.config.timestep_spacing == "leading":
            return noise
        return noise * (1 - self.alphas_cumprod[timestep]).sqrt().to(noise.device)

    def final_alpha(self) -> float:
        """Return the a that sampling ends at: 1, or the first timestep's where a DDIM scheduler says so."""
        return 1.0 if self.solver is not Solver.DDIM else float(self.scheduler.final_alpha_cumprod)

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
