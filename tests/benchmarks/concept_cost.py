"""Measures what a concept costs at true sizes, with random weights: bytes of a file, seconds of an edit.

Times are processor time of one thread. The baseline of an edit is the plain projection of the same prompt, which there
is without any concept; that of its share in a training step is the plain projection's share.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import torch
from diffusers import DDIMScheduler

from tests.benchmarks.report import Report, argument_parser, print_table
from tests.engine.full_size import SD15, SDXL, FullSize
from tests.engine.tiny import random_text_encoder
from workers.engine import attention
from workers.engine.attention import Conditioning, KeyValueProjections
from workers.engine.conditioning import ConceptUse, Conditioner, EncodedPrompts, Prompt
from workers.engine.denoiser import Denoiser
from workers.engine.perfusion.concept import KeyLock
from workers.engine.perfusion.covariance import Covariance
from workers.engine.schedule import NoiseSchedule

LOCKED_BYTES, TRAINED_BYTES = 32 * 1024, 100_000 - 1
CONCEPTS = (0, 1, 3)
_TOKENS = 77
_SMALL = {"block_out_channels": (32, 64, 64, 64), "norm_num_groups": 8}


@dataclass(frozen=True)
class Shape:
    """One family: whose files are counted, whose edit is timed, and whose U-Net takes a training step."""

    name: str
    file: FullSize
    edit: FullSize
    step: FullSize
    latents: int  # the step's side
    what_steps: str


# A step of the whole SDXL U-Net takes more memory than this benchmark may, so that it has one transformer block here
# wherever SDXL has two or ten. Pictures are of 512 pixels; at SDXL's own 1024 the edit is a smaller share still.
SHAPES: Final = (
    Shape("SD 1.5", SD15, SD15, SD15, 64, "the whole U-Net"),
    Shape(
        "SDXL",
        SDXL,
        SDXL,
        replace(SDXL, unet=SDXL.unet | {"transformer_layers_per_block": (1, 1, 1)}),
        64,
        "one transformer block for every two or ten",
    ),
)
_TOY_SD = FullSize(SD15.unet | _SMALL, (32,))
_TOY_XL = FullSize(
    SDXL.unet | {"block_out_channels": (32, 64, 64), "norm_num_groups": 8, "attention_head_dim": (2, 4, 4)},
    (32, 24),
    pooled=1280,
)
QUICK: Final = (
    Shape("SD 1.5", SD15, _TOY_SD, _TOY_SD, 8, "a toy"),
    Shape("SDXL", SDXL, _TOY_XL, _TOY_XL, 8, "a toy"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("concept_cost", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of every timing, after one that warms up")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report, shapes = Report(), QUICK if given.quick else SHAPES
    measure_bytes(report, shapes)
    measure_edits(report, shapes, given.rounds)
    measure_steps(report, shapes, given.rounds)
    report.finish(given.json)


def measure_bytes(report: Report, shapes: Sequence[Shape]) -> None:
    """Write a concept of each key lock, and see how large the file is."""
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes:
            sizes = [shape.file.make_file(lock).save(Path(folder) / "concept") for lock in KeyLock]
            for lock, size in zip(KeyLock, sizes, strict=True):
                report.add(f"{shape.name}: bytes of a file, {lock} keys", size)
            rows.append((shape.name, *sizes))
    for lock, most in ((KeyLock.LOCAL, LOCKED_BYTES), (KeyLock.GLOBAL, LOCKED_BYTES), (KeyLock.TRAINED, TRAINED_BYTES)):
        report.expect(f"SD 1.5: bytes of a file, {lock} keys", "<=", most)
    print_table("Bytes of a concept file", ("base model", *(f"{lock} keys" for lock in KeyLock)), rows)


def measure_edits(report: Report, shapes: Sequence[Shape], rounds: int) -> None:
    """Time how long a prompt's keys and values take with so many concepts in it."""
    rows: list[tuple[str | float, ...]] = []
    for shape in shapes:
        conditioner = _conditioner(shape.edit, _random_projections(shape.edit))
        prompts = [_encoded(shape.edit, count) for count in CONCEPTS]
        works = [partial(_project_plainly, conditioner, prompts[0])]
        works += [partial(conditioner.project, prompt) for prompt in prompts]
        with torch.no_grad():
            plain, *edited = _in_turns(works, rounds)
        for count, seconds in zip(CONCEPTS, edited, strict=True):
            report.add(f"{shape.name}: seconds to edit a prompt, {count} concepts", seconds, baseline=plain)
        rows.append((shape.name, *(1000 * seconds for seconds in (plain, *edited))))
    heads = ("base model", "plain projection", *(f"{count} concepts" for count in CONCEPTS))
    print_table(f"Milliseconds to the keys and values of one prompt, medians of {rounds}", heads, rows)


def measure_steps(report: Report, shapes: Sequence[Shape], rounds: int) -> None:
    """Time a training step of one sample, forwards and backwards, and the part of it that the edit is."""
    rows: list[tuple[str | float, ...]] = []
    for shape in shapes:
        unet = shape.step.make_unet("cpu").eval().requires_grad_(False)
        projections = KeyValueProjections.of(unet)
        attention.install(unet, projections)
        conditioner, prompt = _conditioner(shape.step, projections), _encoded(shape.step, 1, learned=True)
        works = [partial(_project_plainly, conditioner, prompt), partial(conditioner.project, prompt)]
        denoiser = Denoiser(unet, NoiseSchedule.of(DDIMScheduler()))
        step = partial(_step, denoiser, conditioner, prompt, torch.randn(1, 4, shape.latents, shape.latents))
        plain, edited, whole = _in_turns([*(partial(_there_and_back, work) for work in works), step], rounds)
        report.add(f"{shape.name}: seconds of a training step", whole)
        report.add(f"{shape.name}: edit's share of a training step", edited / whole, baseline=plain / whole)
        rows.append(
            (shape.name, whole, 1000 * edited, f"{edited / whole:.2%}", f"{plain / whole:.2%}", shape.what_steps)
        )
    heads = ("base model", "seconds of a step", "ms of the edit", "share", "plain projection's", "of")
    print_table(f"One sample's training step, medians of {rounds}", heads, rows)


def _random_projections(size: FullSize) -> KeyValueProjections:
    """Draw the matrices of a U-Net's cross-attention layers, and of nothing else of it."""
    shaped = KeyValueProjections.of(size.make_unet())
    keys, values = (torch.randn(shaped.keys.shape) * size.encoder_width**-0.5 for _ in range(2))
    return replace(shaped, keys=keys, values=values)


def _conditioner(size: FullSize, projections: KeyValueProjections) -> Conditioner:
    """Return the edit path; its text side is a miniature, as encodings are drawn here and not made."""
    metric = Covariance(torch.eye(size.encoder_width), tokens=1, ridge=0.0)
    return Conditioner(random_text_encoder("sd"), projections, metric, native_size=512)


def _encoded(size: FullSize, count: int, *, learned: bool = False) -> EncodedPrompts:
    """Draw the encodings of a prompt with ``count`` concepts; with gradients where they are being learned."""
    concepts = [size.make_file(KeyLock.LOCAL, seed=number).concept for number in range(count)]
    for concept in concepts:
        concept.value_outputs.requires_grad_(learned)
    uses = tuple(ConceptUse(f"c{number}", concept, 0.6, 0.15) for number, concept in enumerate(concepts))
    encodings = torch.randn(1, _TOKENS, size.encoder_width, requires_grad=learned)
    pooled = None if size.pooled is None else torch.randn(1, size.pooled)
    return EncodedPrompts((Prompt("", uses),), (), encodings, encodings, pooled)


def _project_plainly(conditioner: Conditioner, prompt: EncodedPrompts) -> Conditioning:
    return conditioner.projections.project(prompt.key_encodings, prompt.value_encodings)


def _there_and_back(project: Callable[[], Conditioning]) -> None:
    conditioning = project()
    told = (conditioning.keys, conditioning.values)
    torch.autograd.backward(told, [torch.ones_like(tensor) for tensor in told])


def _step(denoiser: Denoiser, conditioner: Conditioner, prompt: EncodedPrompts, noisy: torch.Tensor) -> None:
    output = denoiser.output(noisy, torch.tensor([500]), conditioner.project(prompt))
    torch.autograd.backward(output.square().mean())


def _in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each after a warm-up, taken in turns so that all meet the same machine."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(1 + rounds):
        for times, work in zip(taken, works, strict=True):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return [median(times[1:]) for times in taken]


if __name__ == "__main__":
    main()
