"""Which sampler draws a model's latents: a student's, that of models in few steps, or the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.dmd.student import draw, seeded_noises
from workers.engine.errors import Interrupted, SettingsInvalid
from workers.engine.family import Guidance
from workers.engine.few_steps import noises_due, sample_few_steps
from workers.engine.sampling import initial_noise, sample_ddim


def takes_unconditional(base: BaseModel) -> bool:
    """Whether the model is drawn with an unconditional branch, which guidance and negative prompts need."""
    return base.student is None and base.guidance is Guidance.CLASSIFIER_FREE


def check_settings(base: BaseModel, *, steps: int, guidance: float, negative_prompt: str) -> None:
    """Raise SettingsInvalid for what the model does not draw with; a guidance of 1 stands for none."""
    if base.student is not None and steps != (own := len(base.student.timesteps)):
        raise SettingsInvalid(f"this student of {base.student.teacher!r} draws in {own} steps, not {steps}")
    base.denoiser.schedule.sampling_timesteps(steps)
    if takes_unconditional(base):
        return
    reads_guidance = base.student is None and base.guidance is Guidance.EMBEDDED
    if negative_prompt or (guidance != 1 and not reads_guidance):
        said = "no negative prompt" if reads_guidance else "no guidance (1 stands for none) and no negative prompt"
        raise SettingsInvalid(f"{'a student' if base.student else f'model {base.name!r}'} takes {said}")


def draw_latents(
    base: BaseModel,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    conditional: Conditioning,
    unconditional: Conditioning | None,
    *,
    steps: int,
    guidance: Sequence[float],
    on_step: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return clean latents (B, C, H, W), each sample's from its own seed alone, on the model's device.

    ``shape`` is one sample's (C, H, W). ``unconditional`` is there where the model takes one. ``should_stop`` is asked
    before every step, of a student before the first, and raises Interrupted.
    """
    if base.student is not None:
        if should_stop():
            raise Interrupted(0)
        told = base.student.timesteps
        latents = draw(base.denoiser, seeded_noises(seeds, shape, len(told)).to(base.device), told, conditional)
        for _ in told:  # few, and too quick to be stopped in between
            on_step()
        return latents
    if unconditional is None:
        noises = seeded_noises(seeds, shape, noises_due(base.denoiser.schedule, steps))  # (k, B, C, H, W)
        return sample_few_steps(
            base.denoiser,
            noises.to(base.device),
            conditional,
            steps=steps,
            guidance=torch.tensor(guidance),
            on_step=on_step,
            should_stop=should_stop,
        )
    return sample_ddim(
        base.denoiser,
        initial_noise(seeds, shape).to(base.device),  # (B, C, H, W)
        conditional,
        unconditional,
        steps=steps,
        guidance=guidance,
        on_step=on_step,
        should_stop=should_stop,
    )
