"""Makes the bundled model: `python -m workers.engine.storybook STAGE`.

From scratch: data, clip, phrases, grader, autoencoder, unet, judge, covariance, sheet, card, student, each with
`--init none`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from workers.engine.storybook.stages import STAGES, Options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage of the recipe."""
    parser = argparse.ArgumentParser(prog="python -m workers.engine.storybook", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the folders storybook* are made")
    parser.add_argument("--cache", type=Path, default=Path(".lockstep/storybook"), help="shards and checkpoints")
    parser.add_argument("--init", default="models/storybook", help="pipeline folder to start from, or none")
    parser.add_argument("--minutes", type=float, help="how long a training stage may take")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--fast", action="store_true", help="train in bf16, compiled: for GPUs and CPUs with AMX")
    parser.add_argument("--quick", action="store_true", help="a toy run of seconds")
    given = vars(parser.parse_args(arguments))
    given["init"] = None if given["init"] == "none" else Path(given["init"])
    stage = STAGES[given.pop("stage")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stage(Options(**given))


if __name__ == "__main__":
    main()
