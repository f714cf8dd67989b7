"""``python -m workers.engine.prepare FOLDER``: make a diffusers folder a base model that concepts can be learned on.

Measures the metric of the folder's text encoder on captions and writes it beside the weights as
``covariance.safetensors``, and into ``lockstep.json`` what the API has to know of the model and cannot read from its
networks. What that file says already stays, except for `concept_space`, which is measured anew. Once per model:
concepts carry the metric's hash, so another one makes strangers of those learned before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from workers.engine.base_model import BaseModel
from workers.engine.errors import EngineError
from workers.engine.perfusion.covariance import compute_covariance
from workers.engine.quiet import silence_loading
from workers.engine.text import TextEncoder

_TOKENS_PER_DIMENSION = 10  # fewer say too little of how the encodings of a language spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare one folder and say what was measured."""
    parser = argparse.ArgumentParser(prog="python -m workers.engine.prepare", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="as diffusers writes it")
    parser.add_argument("--captions", type=Path, help="a text file, one a line; else the folder's prompts.txt")
    parser.add_argument("--device", default="cpu", help="where the text encoder runs")
    given = parser.parse_args(arguments)
    silence_loading()
    try:
        captions = (given.captions or given.folder / "prompts.txt").read_text().splitlines()
        facts = prepare(given.folder, captions, device=torch.device(given.device))
    except (EngineError, OSError, ValueError) as error:
        parser.exit(1, f"{given.folder}: {error}\n")
    print(json.dumps(facts, indent=2))


def prepare(folder: Path, captions: Sequence[str], *, device: torch.device) -> dict[str, object]:
    """Write metric and facts and return the facts; captions that the encoder cannot read whole are left out.

    Raises the EngineError of a folder that cannot be served, and ValueError for too few captions.
    """
    base = BaseModel.load(folder, device=device, dtype=torch.float32)
    readable = _readable(base.text, captions)
    covariance = compute_covariance(base.text, readable)
    if covariance.tokens < (needed := _TOKENS_PER_DIMENSION * base.text.width):
        raise ValueError(f"{len(readable)} captions have {covariance.tokens} tokens; {needed} are needed at least")
    covariance.save(folder / "covariance.safetensors")
    path = folder / "lockstep.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    facts = _assumed(folder, base) | said | {"concept_space": concept_space(replace(base, covariance=covariance))}
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def concept_space(base: BaseModel) -> dict[str, object]:
    """Return what a concept file must name to be of this model: imports are checked by it where there is no torch."""
    return {
        "encoder": base.fingerprint,
        "covariance": base.covariance_sha256,
        "layer_widths": list(base.projections.widths),
    }


def _readable(text: TextEncoder, captions: Sequence[str]) -> list[str]:
    stripped = (caption.strip() for caption in captions)
    return [caption for caption in stripped if caption and len(text.tokens(caption)) <= text.length - 2]


def _assumed(folder: Path, base: BaseModel) -> dict[str, object]:
    """What the networks tell by their shape."""
    levels = len(base.denoiser.unet.config.block_out_channels)
    return {
        "name": folder.resolve().name.lower(),
        "size": base.native_size,
        "size_multiple": base.autoencoder.factor * 2 ** (levels - 1),  # whole cells on the coarsest level
        "max_size": 2 * base.native_size,
    }


if __name__ == "__main__":
    main()
