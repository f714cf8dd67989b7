"""Times serving at true size on a GPU: `python -m tests.benchmarks.gpu.serving --out FOLDER`.

A model of Stable Diffusion 1.5's shape with random weights, as neither time nor memory depends on their values, drawn
with as the product draws: in bf16, through batches that mix concepts, with networks compiled or not. Whatever was
measured by the end of a call's `--minutes` is in `--out` and is not measured again when it is given back by `--state`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.benchmarks.report import Op, Report
from tests.benchmarks.serving.setup import plain_requests
from tests.engine.concepts import random_concept
from tests.engine.full_size import SD15
from workers.engine import attention
from workers.engine.attention import KeyValueProjections
from workers.engine.autoencoder import Autoencoder
from workers.engine.base_model import BaseModel
from workers.engine.compiling import INDUCTOR
from workers.engine.conditioning import ConceptUse
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.family import Guidance
from workers.engine.generation import GenerationRequest, draw_in_batches
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.covariance import Covariance
from workers.engine.quiet import silence_loading
from workers.engine.schedule import NoiseSchedule
from workers.engine.text import TextEncoder, Tower
from workers.engine.warm import WarmModel

Network = TypeVar("Network", bound=torch.nn.Module)

_TOKENIZER = Path(__file__).parents[3] / "models" / "storybook" / "tokenizer"
_LENGTH, _WIDTH = 77, 768
_STEPS, _GUIDANCE = 50, 7.5
_ROUNDS = 7
_FULL_DECODER = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
_TARGETS: dict[str, tuple[Op, float]] = {
    "milliseconds: one step, tiny decoder, compiled, batch 1": ("<=", 8.0),
    "milliseconds: one step, full decoder, compiled, batch 1": ("<=", 15.0),
    "pictures a second: one step, tiny decoder, compiled, batch 16": (">=", 250.0),
    "times faster than 50 steps: full decoder, compiled": (">=", 20.0),
    "times faster than 50 steps: tiny decoder, compiled": (">=", 50.0),
    "throughput with concepts: full decoder, compiled, batch 8": (">=", 0.97),
}


@dataclass(frozen=True)
class Shape:
    """How large the networks are, and how much is measured of them."""

    unet: Callable[[str], UNet2DConditionModel]
    full_decoder: dict[str, object]
    layers: int
    batches: tuple[int, ...]
    steps: int
    rounds: int
    backend: str


TRUE = Shape(SD15.make_unet, _FULL_DECODER, 12, (1, 4, 8, 16), _STEPS, _ROUNDS, INDUCTOR)
TOY = Shape(
    lambda device: UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 32, 32, 32), layers_per_block=1, cross_attention_dim=_WIDTH
    ).to(device),
    {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "latent_channels": 4},
    1,
    (1, 2),
    2,
    1,
    "eager",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure for the time given, and bring back what there is."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu.serving", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, help="what an earlier call brought back")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to try the script out")
    given = parser.parse_args(arguments)
    silence_loading()
    known: dict[str, float] = {}
    if given.state is not None:
        known = json.loads((given.state / "serving.json").read_text())["seconds"]
    seconds = measure(TOY if given.quick else TRUE, given.device, known, until=time.monotonic() + 60 * given.minutes)
    given.out.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor()
    machine = {"device": device, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    document = {**machine, "seconds": seconds, **report_of(seconds).as_json()}
    (given.out / "serving.json").write_text(json.dumps(document, indent=1) + "\n")


def measure(shape: Shape, device: str, known: dict[str, float], *, until: float) -> dict[str, float]:
    """Return the seconds of every kind of batch by its name, those that are known and those there was time for."""
    seconds = dict(known)
    for name, work in _works(shape, device):
        if name in seconds:
            continue
        if time.monotonic() > until:
            break
        seconds[name] = _median_seconds(work, shape.rounds)
        print(f"{name}: {1000 * seconds[name]:.2f} ms", flush=True)
    return seconds


def report_of(seconds: dict[str, float]) -> Report:
    """Return the figures that can be told of what was measured, with the targets among them."""
    report = Report()
    for name, taken in seconds.items():
        report.add(f"milliseconds: {name}", 1000 * taken)
        how, _, batch = name.rpartition(", batch ")
        report.add(f"pictures a second: {name}", int(batch) / taken)
        reference = name.replace("one step", "many steps")
        if how.startswith("one step") and reference in seconds and reference != name:
            report.add(f"times faster than 50 steps: {how.removeprefix('one step, ')}", seconds[reference] / taken)
        plain = name.replace(", with concepts", "")
        if plain != name and plain in seconds:
            report.add(f"throughput with concepts: {plain.removeprefix('one step, ')}", seconds[plain] / taken)
    for figure, (op, target) in _TARGETS.items():
        if figure in report.figures:
            report.expect(figure, op, target)
    return report


def _works(shape: Shape, device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    base = _base_model(shape, device)
    tiny = replace(base, autoencoder=Autoencoder(_placed(AutoencoderTiny(), device)))
    for decoder, decoded in (("tiny", tiny), ("full", base)):
        for mode, backend in (("eager", None), ("compiled", shape.backend)):
            student = WarmModel(replace(decoded, student=_student()), backend)
            for batch in shape.batches:
                requests = [_request(student.base, seed) for seed in range(batch)]
                yield f"one step, {decoder} decoder, {mode}, batch {batch}", _drawing(student, requests)
            concepts = [_with_concept(student.base, seed) for seed in range(shape.batches[-2])]
            name = f"one step, {decoder} decoder, {mode}, with concepts, batch {shape.batches[-2]}"
            yield name, _drawing(student, concepts)
            many = replace(_request(base, 0), steps=shape.steps, guidance=_GUIDANCE)
            yield f"many steps, {decoder} decoder, {mode}, batch 1", _drawing(WarmModel(decoded, backend), [many])


def _drawing(model: WarmModel, requests: Sequence[GenerationRequest]) -> Callable[[], None]:
    def draw() -> None:
        for answers in draw_in_batches(
            model,
            requests,
            batch_size=len(requests),
            on_progress=lambda _done, _due: None,
            should_stop=lambda: False,
        ):
            for answer in answers.values():
                if isinstance(answer, Exception):
                    raise answer

    return draw


def _median_seconds(work: Callable[[], None], rounds: int) -> float:
    for _ in range(3):  # the first compiles, the second records graphs
        work()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()  # pictures end on the CPU, so that the GPU is done when they are there
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _base_model(shape: Shape, device: str) -> BaseModel:
    torch.manual_seed(0)
    unet = shape.unet(device)
    tokenizer = CLIPTokenizer.from_pretrained(_TOKENIZER, model_max_length=_LENGTH)
    config = CLIPTextConfig(
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=shape.layers,
        num_attention_heads=12,
        max_position_embeddings=_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = TextEncoder(Tower(tokenizer, CLIPTextModel(config).eval().requires_grad_(False).to(device)))
    projections = KeyValueProjections.of(unet)
    attention.install(unet, projections)
    schedule = NoiseSchedule.of(DDIMScheduler(timestep_spacing="trailing", beta_schedule="scaled_linear"))
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return BaseModel(
        name="true size",
        text=text,
        projections=projections,
        denoiser=Denoiser(_placed(unet, device), schedule),
        autoencoder=Autoencoder(_placed(AutoencoderKL(**blocks, **shape.full_decoder), device)),
        covariance=Covariance(torch.eye(_WIDTH, device=device), tokens=1, ridge=0.0),
        perfusion=PerfusionConfig(),
        distillation=DistillationConfig(),
        prompts=(),
        device=torch.device(device),
        student=None,
        guidance=Guidance.CLASSIFIER_FREE,
        validation=None,
        preview=None,
        segmenter=None,
    )


def _placed(network: Network, device: str) -> Network:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    placed: Network = network.eval().requires_grad_(False).to(device=device, dtype=dtype)
    return placed


def _student() -> StudentFacts:
    return StudentFacts("true size", (999,), guidance=_GUIDANCE, key_locked=True, steps=0)


def _request(base: BaseModel, seed: int) -> GenerationRequest:
    requests = plain_requests(base)
    return replace(requests[seed % len(requests)], seed=seed)


def _with_concept(base: BaseModel, seed: int) -> GenerationRequest:
    concept = random_concept(base, seed).to(base.device)
    request = _request(base, seed)
    use = ConceptUse("it", concept, gate_bias=0.6, gate_temperature=0.15)
    return replace(request, prompt=request.prompt.replace("cat", "<it>"), concepts=(use,))


if __name__ == "__main__":
    main()
