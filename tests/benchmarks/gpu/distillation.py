"""Distils the bundled model on a GPU, in short calls: `python -m tests.benchmarks.gpu.distillation`.

A call works for at most `--minutes`, then leaves a checkpoint; the next one goes on from there. The machine may be gone
by then: what a call brings to `--out` is enough to go on elsewhere, given as `--state`. That is one file for each
student that was finished, and the student in progress in parts, its weights in half precision and without the
optimisers' moments, which come back within a few steps. Pairs are drawn again, the same ones. With no time at all
(`--minutes 0`) a call only turns what is in `--state` into model folders.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.student_model import StudentFacts, export_student
from workers.engine.quiet import silence_loading
from workers.engine.storybook.distilling import FULL, RECIPES, Recipe, make_students, toy
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.storybook.student_material import Material, Workplace, own_prompts
from workers.engine.tensor_file import read_tensors, write_tensors

FILES, PART_BYTES = 8, 15 * 2**20
BATCH = 256
_MOMENTS = ("/exp_avg/", "/exp_avg_sq/", "/step/")
_GAN = replace(FULL, steps=800, lr=2e-5, critic_lr=2e-5, gan_weight=3e-3, critic_warmup=100)


def larger(config: DistillationConfig) -> DistillationConfig:
    """Return settings for a GPU: eight times the batch, twice the updates of the student."""
    return replace(config, batch_size=BATCH, steps=2 * config.steps, checkpoint_every=500, preview_every=500)


GPU_RECIPES = {
    name: replace(recipe, config=larger(recipe.config))
    for name, recipe in (RECIPES | {"gan": Recipe(_GAN, after="student")}).items()
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Go on for the time given, and bring back what is new."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu.distillation", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the teacher's folder lies")
    parser.add_argument("--work", type=Path, default=Path(".lockstep/gpu-distillation"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, help="what earlier calls brought back")
    parser.add_argument("--only", nargs="+", choices=GPU_RECIPES, help="these students, with what they start from")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to try the script out")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    silence_loading()
    until = time.monotonic() + 60 * given.minutes
    cuda = given.device == "cuda"
    place = Workplace(given.models / "storybook", given.work, given.device, fast=cuda, until=until)
    recipes = _with_their_starts(given.only or GPU_RECIPES)
    if given.state is not None:
        take_up(place, given.state)
    left = make_students(place, _material(place, quick=given.quick), toy(recipes) if given.quick else recipes)
    bring_back(place, given.out, recipes)
    print("all students are finished" if not left else f"to be continued with: {', '.join(left)}")


def bring_back(place: Workplace, out: Path, recipes: Mapping[str, Recipe]) -> None:
    """Write what is new since the last call, the unfinished student first, in as many files as fit."""
    out.mkdir(parents=True, exist_ok=True)
    _write_machine(place, out)
    for name in recipes:
        _save_state(place.run(name), out)
    ledger = place.work / "brought.json"
    brought: list[str] = json.loads(ledger.read_text()) if ledger.exists() else []
    room = FILES - sum(1 for _ in out.iterdir())
    fresh = [name for name in recipes if place.student(name).exists() and name not in brought][: max(0, room)]
    for name in fresh:
        _save_student(place.student(name), out / f"{name}.safetensors")
    place.work.mkdir(parents=True, exist_ok=True)
    ledger.write_text(json.dumps([*brought, *fresh]))


def take_up(place: Workplace, state: Path) -> None:
    """Lay out what earlier calls brought back as they had it: model folders, and the checkpoint in progress."""
    for path in sorted(state.glob("*.safetensors")):
        name, _, part = path.stem.partition(".")
        if place.student(name).exists():
            continue
        if part:
            _restore_state(place.run(name), sorted(state.glob(f"{name}.*.safetensors")))
        else:
            _restore_student(place, path, name)


def parts(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Cut tensors, in order, into sets of at most ``limit`` bytes, or of one tensor."""
    part: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if part and sum(held.nbytes for held in part.values()) + tensor.nbytes > limit:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _save_student(folder: Path, path: Path) -> None:
    """Put a finished student's weights and all that is known of it into one file."""
    weights, _ = read_tensors(folder / "unet" / "diffusion_pytorch_model.safetensors")
    card = json.loads((folder / "lockstep.json").read_text())
    facts = {key: json.dumps(card[key]) for key in ("name", "student")}
    write_tensors(path, weights, facts | {"record": (folder / "record.json").read_text()})


def _restore_student(place: Workplace, path: Path, name: str) -> None:
    weights, told = read_tensors(path)
    base, folder = place.load(place.teacher), place.student(name)
    base.denoiser.unet.load_state_dict(weights)
    facts = StudentFacts.of({"student": json.loads(told["student"])})
    assert facts is not None  # a student's folder has them
    export_student(
        base.denoiser.unet,
        facts,
        name=json.loads(told["name"]),
        teacher=place.teacher,
        folder=folder,
        dtype=torch.float16,
    )
    (folder / "record.json").write_text(told["record"])


def _save_state(run: Path, out: Path) -> None:
    """Write a run's last checkpoint in parts, if it has one."""
    checkpoint = max(run.glob("checkpoint-*.safetensors"), default=None)
    if checkpoint is None:
        return
    tensors, facts = read_tensors(checkpoint)
    kept = {name: tensor for name, tensor in tensors.items() if not any(moment in name for moment in _MOMENTS)}
    half = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in kept.items()}
    told = {**facts, "checkpoint": checkpoint.name, "journal": (run / "journal.json").read_text()}
    for number, part in enumerate(parts(half, PART_BYTES)):
        write_tensors(out / f"{run.name}.{number}.safetensors", part, told)


def _restore_state(run: Path, files: Sequence[Path]) -> None:
    """Join a checkpoint's parts, unless the run has a whole one still."""
    if any(run.glob("checkpoint-*.safetensors")):
        return
    tensors: dict[str, Tensor] = {}
    told: dict[str, str] = {}
    for file in files:
        part, told = read_tensors(file)
        tensors |= part
    run.mkdir(parents=True, exist_ok=True)
    (run / "journal.json").write_text(told.pop("journal"))
    write_tensors(run / told.pop("checkpoint"), tensors, told)


def _with_their_starts(names: Sequence[str] | Mapping[str, Recipe]) -> dict[str, Recipe]:
    needed = set(names)
    for name in reversed(GPU_RECIPES):
        after = GPU_RECIPES[name].after
        if name in needed and after is not None:
            needed.add(after)
    return {name: recipe for name, recipe in GPU_RECIPES.items() if name in needed}


def _material(place: Workplace, *, quick: bool) -> Material:
    prompts = own_prompts(place.teacher, 4000)
    if quick:
        return Material(prompts[:4], pairs=4, shards=2, teacher_steps=2, guidance=GUIDANCE, renders=4)
    return Material(prompts, pairs=20_000, shards=10, teacher_steps=50, guidance=GUIDANCE, renders=5000)


def _write_machine(place: Workplace, out: Path) -> None:
    cuda = place.device == "cuda"
    facts = {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "most bytes on the device": torch.cuda.max_memory_allocated() if cuda else 0,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    (out / "machine.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
