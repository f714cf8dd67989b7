"""Measures the bundled base model and the judges that measure it.

Judges first, since every figure that follows is theirs: on held-out renders. Then 500 held-out prompts, drawn by the
engine: what the judge reads off the pictures, beside the same pictures against each other's prompts (a model that
ignores them) and renders of the same compositions (a perfect one). Then the pictures' distance from renders of other
held-out compositions, beside that between two sets of renders as large. Then a contact sheet, speed and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.config import Settings
from tests.benchmarks.foreign_concept import is_refused
from tests.benchmarks.report import Report, argument_parser, print_table
from workers.engine.base_model import BaseModel
from workers.engine.metrics import ClipGrader
from workers.engine.pictures import to_pictures
from workers.engine.quiet import silence_loading
from workers.engine.storybook.drawing import Drawing, draw_in_processes, load_model
from workers.engine.storybook.judge_pictures import draw_compositions
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures, to_tensor
from workers.engine.storybook.scores import (
    Prompted,
    attribute_accuracy,
    held_out,
    identity_accuracy,
    prompt_following,
    seconds_per_picture,
)
from workers.engine.storybook.sheet import PROMPTS, write_grid

ROOT = Path(__file__).parents[2]
GUIDANCE = 3.0
FOLLOWING = {
    "class": 0.90,
    "scene": 0.90,
    "style": 0.90,
    "colour": 0.85,
    "accessory": 0.80,
    "both classes of a pair": 0.70,
}
JUDGED = 0.97
DISTANCES = ("Frechet", "CMMD")
TIMES_THE_FLOOR = 3.0
SECONDS, STEPS = 2.5, 50
PARAMETERS = 8e6
WEIGHT_BYTES, SHARD_BYTES = 40e6, 16 * 2**20

# Numbers of held-out pictures: no two uses share one.
_FIRST_PROMPT, _FIRST_JUDGED, _FIRST_REAL = 1 << 30, 1 << 32, 1 << 33
_SHEET_SEED = 3


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    renders: int = 4000
    lineups: int = 60
    prompts: int = 500
    steps: int = STEPS
    sheet: int = len(PROMPTS)
    timed: int = 5


QUICK = Size(renders=160, lineups=2, prompts=16, steps=4, sheet=8, timed=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("base_model", __doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "storybook")
    parser.add_argument("--judges", type=Path, default=ROOT / "models" / "storybook-judges")
    parser.add_argument("--grader", type=Path, default=ROOT / "models" / "storybook-grader", help="a CLIP folder")
    parser.add_argument("--processes", type=int, default=2, help="that draw, of one thread each")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the contact sheet here")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    silence_loading()
    torch.set_num_threads(1)
    report, judge = Report(), AttributeJudge.load(given.judges)
    measure_judges(report, judge, IdentityJudge.load(given.judges), size)
    asked = held_out(size.prompts, first=_FIRST_PROMPT)
    how = Drawing(size.steps, GUIDANCE)
    pictures = draw_in_processes(given.model, [prompted.prompt for prompted in asked], how, processes=given.processes)
    measure_following(report, judge, pictures, asked, how)
    base = load_model(given.model)
    measure_distances(report, ClipGrader.load(given.grader), base, pictures, asked)
    if given.sheet is not None:
        how = Drawing(size.steps, GUIDANCE, _SHEET_SEED)
        write_grid(draw_in_processes(given.model, PROMPTS[: size.sheet], how, processes=given.processes), given.sheet)
    measure_speed_and_size(report, base, given.model, size)
    report.finish(given.json)


def measure_judges(report: Report, judge: AttributeJudge, identities: IdentityJudge, size: Size) -> None:
    """Measure both judges on renders of the held-out split."""
    compositions = [prompted.composition for prompted in held_out(size.renders, first=_FIRST_JUDGED)]
    accuracies = attribute_accuracy(judge, compositions)
    for name, accuracy in accuracies.items():
        report.add(f"judge: {name}", accuracy.share)
        report.expect(f"judge: {name}", ">=", JUDGED)
    picked = identity_accuracy(identities, groups=size.lineups)
    report.add("judge: identity among 10", picked.share, baseline=0.1)
    rows = [(name, accuracy.share, accuracy.count) for name, accuracy in accuracies.items()]
    rows.append(("identity among 10 lookalikes", picked.share, picked.count))
    print_table("Judges on held-out renders", ("attribute", "right", "N"), rows)


def measure_following(
    report: Report, judge: AttributeJudge, pictures: Pictures, asked: Sequence[Prompted], how: Drawing
) -> None:
    """Measure what the judge reads off the pictures against what their prompts say."""
    scores = prompt_following(judge, pictures, asked)
    for name, score in scores.items():
        report.add(f"following: {name}", score.generated, baseline=score.shuffled)
        report.add(f"renders: {name}", score.rendered)
        if name in FOLLOWING:
            report.expect(f"following: {name}", ">=", FOLLOWING[name])
    print_table(
        f"Prompt following: {len(asked)} held-out prompts, {how.steps} steps, guidance {how.guidance:g}",
        ("attribute", "generated", "other prompts", "renders", "N"),
        [(name, s.generated, s.shuffled, s.rendered, s.count) for name, s in scores.items()],
    )


def measure_distances(
    report: Report, grader: ClipGrader, base: BaseModel, pictures: Pictures, asked: Sequence[Prompted]
) -> None:
    """Measure how far the pictures are from renders; those that only the autoencoder touched stand beside them."""
    real = held_out(2 * len(asked), first=_FIRST_REAL)
    real_pictures, real_prompts = _images(draw_compositions([r.composition for r in real])), [r.prompt for r in real]
    prompts = [prompted.prompt for prompted in asked]
    decoded = _decoded(base, draw_compositions([prompted.composition for prompted in asked]))
    graded = grader.grade(_images(pictures), prompts, real_pictures, real_prompts)
    beside = grader.grade(decoded, prompts, real_pictures, real_prompts)
    for name, figure in graded.items():
        report.add(name, figure.value, baseline=beside[name].value)
        report.add(f"{name} of renders", figure.floor)
    for name in DISTANCES:
        report.add(f"{name} over its floor", graded[name].value / graded[name].floor)
        report.expect(f"{name} over its floor", "<=", TIMES_THE_FLOOR)
    print_table(
        f"Against renders of other compositions, in the features of {base.name}'s grader",
        ("figure", "generated", "decoded renders", "renders", "N"),
        [(name, f.value, beside[name].value, f.floor, f.n) for name, f in graded.items()],
    )


def measure_speed_and_size(report: Report, base: BaseModel, folder: Path, size: Size) -> None:
    """Measure a picture's time on one core, count weights, and check where the model stands in the product."""
    shards = [path.stat().st_size for path in folder.parent.rglob("*.safetensors")]
    limits = {
        "seconds per picture": (seconds_per_picture(base, Drawing(STEPS, GUIDANCE), pictures=size.timed), SECONDS),
        "U-Net parameters": (float(sum(p.numel() for p in base.denoiser.unet.parameters())), PARAMETERS),
        "bytes of all weights and a student's": (float(sum(shards)), WEIGHT_BYTES),
        "bytes of the largest shard": (float(max(shards)), SHARD_BYTES),
    }
    for name, (value, limit) in limits.items():
        report.add(name, value)
        report.expect(name, "<=", limit)
    registered = [(ROOT / model).resolve() for model in Settings.model_fields["models"].default]
    checks = {
        "the demo draws with this model": folder.resolve() in registered,
        "a concept of another text encoder is refused": is_refused(base),
    }
    for name, holds in checks.items():
        report.add(name, float(holds))
        report.expect(name, ">=", 1)
    rows = [(name, f"{value:,.2f}" if value < 100 else f"{value:,.0f}") for name, (value, _) in limits.items()]
    print_table("Speed and size", ("fact", "value"), [*rows, *((name, str(holds)) for name, holds in checks.items())])


def _images(pictures: Pictures) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pictures]


def _decoded(base: BaseModel, pictures: Pictures) -> list[Image.Image]:
    """Send renders through the autoencoder alone, which is the nearest that a generated picture can come."""
    parts = np.array_split(pictures, max(1, len(pictures) // 50))
    latents = [base.autoencoder.encode(to_tensor(part)) for part in parts]
    return [image for some in latents for image in to_pictures(base.autoencoder.decode(some))]


if __name__ == "__main__":
    main()
