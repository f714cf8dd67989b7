"""Trains the bundled base model on a GPU, from random weights: `python -m tests.benchmarks.gpu.base_model`.

A call works for at most `--minutes` and then stops wherever it is; the next one goes on from there: stages that are
finished are not run again, and the U-Net goes on from its checkpoint. Whatever there is by the end of a call is copied
to `--out`: weights in shards under 16 MiB, the card, the contact sheet and the records with device and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch

STAGES = ("data", "clip", "phrases", "grader", "autoencoder", "unet", "judge", "covariance", "sheet", "card")
MINUTES = {"clip": 5.0, "phrases": 1.0, "grader": 5.0, "autoencoder": 3.0, "unet": 14.0, "judge": 6.0}


@dataclass(frozen=True)
class Place:
    """Where work in progress and finished files lie, and how the stages are to run."""

    work: Path
    out: Path
    device: str
    workers: int
    quick: bool

    def command(self, stage: str) -> list[str]:
        """Return the command line of one stage."""
        line = [sys.executable, "-m", "workers.engine.storybook", stage, "--init", "none"]
        line += ["--models", str(self.work / "models"), "--cache", str(self.work / "cache")]
        if stage in {"data", "judge"}:
            line += ["--workers", str(self.workers)]
        if stage in {"autoencoder", "unet"}:
            line += ["--device", self.device]
        if stage == "unet" and self.device == "cuda":
            line.append("--fast")
        if stage in MINUTES:
            line += ["--minutes", str(MINUTES[stage])]
        return line + (["--quick"] if self.quick else [])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run stages until all are finished or the call's time is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu.base_model", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".lockstep/gpu-base-model"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="toy sizes, to try the script out")
    given = parser.parse_args(arguments)
    place = Place(given.work, given.out, given.device, given.workers, given.quick)
    left = run(place, until=time.monotonic() + 60 * given.minutes)
    bring_back(place)
    print("all stages are finished" if not left else f"to be continued with: {', '.join(left)}")


def run(place: Place, *, until: float) -> list[str]:
    """Run the stages that are not finished; return those that the time did not suffice for."""
    ledger = place.work / "finished.json"
    finished: list[str] = json.loads(ledger.read_text()) if ledger.exists() else []
    for stage in STAGES:
        if stage in finished:
            continue
        print(f"{stage} ...", flush=True)
        try:
            subprocess.run(place.command(stage), check=True, timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            break
        finished.append(stage)
        ledger.parent.mkdir(parents=True, exist_ok=True)
        ledger.write_text(json.dumps(finished))
    return [stage for stage in STAGES if stage not in finished]


def bring_back(place: Place) -> None:
    """Copy models and records, and say what they were made on."""
    for source, name in ((place.work / "models", "models"), (place.work / "cache" / "records", "records")):
        if source.exists():
            shutil.copytree(source, place.out / name, dirs_exist_ok=True)
    device = torch.cuda.get_device_name() if place.device == "cuda" else platform.processor() or "cpu"
    facts = {"device": device, "torch": torch.__version__, "diffusers": diffusers.__version__}
    place.out.mkdir(parents=True, exist_ok=True)
    (place.out / "machine.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
