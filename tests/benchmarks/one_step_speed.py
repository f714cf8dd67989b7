"""How much sooner a student's picture is there: its teacher at 50 steps and itself, in turns, in one run.

The teacher is measured guided at every step, as the papers count, and as it draws unless told otherwise, which leaves
guidance out where it does not help. Where there is a C++ compiler, both are measured compiled as well, which is how
workers draw that are told to (`LOCKSTEP_COMPILE`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from tests.benchmarks.one_step_setup import Size
from tests.benchmarks.report import Report, print_table
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.compiling import INDUCTOR, compiled
from workers.engine.conditioning import Prompt
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.student import draw, seeded_noises
from workers.engine.generation import GenerationRequest, generate
from workers.engine.sampling import initial_noise, sample_ddim
from workers.engine.storybook.facts import GUIDANCE

PROMPT = "a striped red cat in the snow"
FASTER_UNET, FASTER_PICTURE = 80.0, 45.0
_TURNS = 5  # of the student, for each of the teacher


def measure_speed(report: Report, teacher: BaseModel, student: BaseModel, size: Size) -> None:
    """Measure processor time of one thread, which is what a picture takes on an idle core."""
    assert student.student is not None  # or main would not have got here
    told, rows = student.student.timesteps, []
    for how, (slow_one, fast_one), targets in _ways(teacher, student, size):
        unet = _in_turns(_sampling(slow_one, size.steps), _student_sampling(fast_one, told), size.rounds)
        draw_both = (partial(_picture, slow_one, size.steps, GUIDANCE), partial(_picture, fast_one, len(told), 1.0))
        whole = _in_turns(*draw_both, size.rounds)
        for part, (slow, fast), faster in zip(("U-Net", "picture"), (unet, whole), targets, strict=True):
            name = part + how
            report.add(f"{name}: milliseconds of the student", 1000 * fast, baseline=1000 * slow)
            report.add(f"{name}: times faster", slow / fast)
            if faster is not None:
                report.expect(f"{name}: times faster", ">=", faster)
            rows.append((name, f"{1000 * slow:.1f}", f"{1000 * fast:.1f}", f"{slow / fast:.1f}"))
    for name, milliseconds in _parts(student, size.rounds).items():
        rows.append((name, f"{milliseconds:.1f}", f"{milliseconds:.1f}", "1.0"))
    print_table(
        f"Milliseconds of one core: {size.steps} guided steps against {len(told)}, medians of {size.rounds} rounds",
        ("part", "teacher", "student", "times faster"),
        rows,
    )


def _ways(
    teacher: BaseModel, student: BaseModel, size: Size
) -> Iterator[tuple[str, tuple[BaseModel, BaseModel], tuple[float | None, float | None]]]:
    """Yield how both draw, both of them, and how many times faster the student's U-Net and picture should be."""
    yield "", (_guided_everywhere(teacher), student), (FASTER_UNET, FASTER_PICTURE)
    yield ", guided by default", (teacher, student), (None, None)
    if size.compiled and shutil.which("g++"):
        both = (compiled(_guided_everywhere(teacher), INDUCTOR), compiled(student, INDUCTOR))
        yield ", compiled", both, (FASTER_UNET, FASTER_PICTURE)


def _guided_everywhere(base: BaseModel) -> BaseModel:
    schedule = replace(base.denoiser.schedule, guidance_interval=(0.0, 1.0))
    return replace(base, denoiser=Denoiser(base.denoiser.unet, schedule))


def _in_turns(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median seconds of both after a warm-up of both, taken in turns so that both meet the same machine."""
    slow_times, fast_times = [], []
    _seconds(slow)
    _seconds(fast)
    for _ in range(rounds):
        slow_times.append(_seconds(slow))
        fast_times += [_seconds(fast) for _ in range(_TURNS)]
    return median(slow_times), median(fast_times)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _sampling(base: BaseModel, steps: int) -> Callable[[], object]:
    """Return what draws the latents of one guided picture, its prompt being encoded already."""
    return torch.inference_mode()(
        partial(
            sample_ddim,
            base.denoiser,
            initial_noise([0], base.latent_shape(base.native_size, base.native_size)),
            _encoded(base, PROMPT),
            _encoded(base, ""),
            steps=steps,
            guidance=[GUIDANCE],
            on_step=lambda: None,
            should_stop=lambda: False,
        )
    )


def _student_sampling(base: BaseModel, told: tuple[int, ...]) -> Callable[[], object]:
    noises = seeded_noises([0], base.latent_shape(base.native_size, base.native_size), len(told))
    return torch.inference_mode()(partial(draw, base.denoiser, noises, told, _encoded(base, PROMPT)))


@torch.no_grad()
def _encoded(base: BaseModel, prompt: str) -> Conditioning:
    return base.conditioner.condition([Prompt(prompt)])


def _picture(base: BaseModel, steps: int, guidance: float) -> None:
    request = GenerationRequest(PROMPT, 0, steps, guidance, base.native_size, base.native_size)
    generate(base, [request], batch_size=1, on_progress=lambda _done, _due: None, should_stop=lambda: False)


def _parts(base: BaseModel, rounds: int) -> Mapping[str, float]:
    """Return the milliseconds of what no student saves."""
    latents = torch.zeros((1, *base.latent_shape(base.native_size, base.native_size)))
    works: dict[str, Callable[[], object]] = {
        "text": lambda: _encoded(base, PROMPT),
        "decoder": lambda: base.autoencoder.decode(latents),
    }
    return {name: 1000 * median(_seconds(work) for _ in range(_TURNS * rounds + 1)) for name, work in works.items()}
