"""How near students' pictures come to their teacher's: from the same prompts and noise, by the same measures and N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.benchmarks.one_step_setup import Models, Size, draw_set
from tests.benchmarks.report import Report, print_table
from workers.engine.metrics import ClipGrader, Figure
from workers.engine.storybook.judge_pictures import draw_compositions
from workers.engine.storybook.judges import AttributeJudge, Pictures
from workers.engine.storybook.sampling import ATTRIBUTES
from workers.engine.storybook.scores import Prompted, held_out, prompt_following

DISTANCES = ("Frechet", "CMMD")
TIMES_THE_TEACHER, FOLLOWED, VARIED = 1.5, 0.9, 0.9
BOTH = "both classes of a pair"

_FIRST_PROMPT, _FIRST_REAL, _FIRST_VARIED = 3 << 30, 3 << 33, 3 << 34
_FIRST_SEED, _FIRST_VARIED_SEED = 0, 100_000
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def measure_quality(report: Report, models: Models, judge: AttributeJudge, grader: ClipGrader, size: Size) -> None:
    """Measure distance from renders, prompt following, detail, diversity, and how far students keep to the teacher."""
    asked = held_out(size.prompts, first=_FIRST_PROMPT)
    folders = {"teacher": models.teacher, **models.students}
    prompts = [prompted.prompt for prompted in asked]
    drawn = {name: draw_set(folder, prompts, size, first_seed=_FIRST_SEED) for name, folder in folders.items()}
    measure_distances(report, grader, drawn, prompts)
    measure_following(report, judge, drawn, asked)
    measure_detail(report, drawn, draw_compositions([prompted.composition for prompted in asked]))
    measure_diversity(report, grader, folders, size)


def graded_against_renders(
    grader: ClipGrader, pictures: Pictures, prompts: Sequence[str], *, first: int = _FIRST_REAL
) -> dict[str, Figure]:
    """Grade N pictures against 2 N renders of compositions that nobody was asked for."""
    real = held_out(2 * len(pictures), first=first)
    renders = draw_compositions([prompted.composition for prompted in real])
    return grader.grade(images(pictures), prompts, images(renders), [prompted.prompt for prompted in real])


def measure_distances(
    report: Report, grader: ClipGrader, drawn: Mapping[str, Pictures], prompts: Sequence[str]
) -> None:
    """Measure each model's distance from renders, with the floor between two sets of renders."""
    graded = {name: graded_against_renders(grader, pictures, prompts) for name, pictures in drawn.items()}
    teacher = graded["teacher"]
    for name, figures in graded.items():
        for figure, measured in figures.items():
            report.add(f"{figure}: {name}", measured.value, baseline=measured.floor)
        for figure in DISTANCES:
            if name != "teacher":
                report.add(f"{figure}: {name} over teacher", figures[figure].value / teacher[figure].value)
    for figure in DISTANCES:
        report.expect(f"{figure}: student over teacher", "<=", TIMES_THE_TEACHER)
    print_table(
        "Against renders of other compositions",
        ("figure", *graded, "renders", "N"),
        [(name, *(figures[name].value for figures in graded.values()), f.floor, f.n) for name, f in teacher.items()],
    )


def measure_following(
    report: Report, judge: AttributeJudge, drawn: Mapping[str, Pictures], asked: Sequence[Prompted]
) -> None:
    """Measure what the judge reads off the pictures against what their prompts say."""
    scores = {name: prompt_following(judge, pictures, asked) for name, pictures in drawn.items()}
    rows: list[tuple[str | float | int, ...]] = []
    for attribute in (*ATTRIBUTES, BOTH):
        if attribute not in scores["teacher"]:
            continue
        teacher = scores["teacher"][attribute]
        for name, of_model in scores.items():
            report.add(f"{attribute}: {name}", of_model[attribute].generated, baseline=of_model[attribute].shuffled)
        kept = f"{attribute}: student over teacher"
        report.add(kept, scores["student"][attribute].generated / max(teacher.generated, 1e-9))
        report.expect(kept, ">=", FOLLOWED)
        values = [of_model[attribute].generated for of_model in scores.values()]
        rows.append((attribute, *values, teacher.rendered, teacher.count))
    print_table("Prompt following, as the judge reads it", ("attribute", *scores, "renders", "N"), rows)


def measure_detail(report: Report, drawn: Mapping[str, Pictures], renders: Pictures) -> None:
    """Measure blur, which grading features hardly see, and how far a noise's picture stayed what it was."""
    rows: list[tuple[str, float, float, float]] = []
    teacher = drawn["teacher"]
    for name, pictures in drawn.items():
        report.add(f"detail: {name}", detail(pictures), baseline=detail(renders))
        kept, apart = _apart(pictures, teacher), _apart(pictures, np.roll(teacher, 1, axis=0))
        if name != "teacher":
            report.add(f"distance from the teacher's picture: {name}", kept, baseline=apart)
        rows.append((name, detail(pictures), kept, apart))
    rows.append(("renders", detail(renders), _apart(renders, teacher), _apart(renders, np.roll(teacher, 1, axis=0))))
    print_table(
        f"Detail (mean size of the Laplacian), distance from the teacher's pictures; N = {len(teacher)}",
        ("drawn by", "detail", "same noise", "another prompt's"),
        rows,
    )


def measure_diversity(report: Report, grader: ClipGrader, folders: Mapping[str, Path], size: Size) -> None:
    """Measure how much pictures of one prompt differ."""
    varied = [prompted.prompt for prompted in held_out(size.varied, first=_FIRST_VARIED)]
    prompts = [prompt for prompt in varied for _ in range(size.seeds)]
    distances = {}
    for name, folder in folders.items():
        pictures = draw_set(folder, prompts, size, first_seed=_FIRST_VARIED_SEED)
        features = grader.image_features(images(pictures)).view(size.varied, size.seeds, -1)  # (P, S, D)
        distances[name] = mean_pairwise_distance(features)
        report.add(f"diversity: {name}", distances[name])
    report.add("diversity: student over teacher", distances["student"] / max(distances["teacher"], 1e-9))
    report.expect("diversity: student over teacher", ">=", VARIED)
    print_table(
        f"Mean distance between two pictures of one prompt: {size.varied} prompts, {size.seeds} pictures each",
        ("drawn by", "distance"),
        list(distances.items()),
    )


def mean_pairwise_distance(features: torch.Tensor) -> float:
    """Return the mean over prompts and pairs of the distance of unit features (P, S, D)."""
    unit = torch.nn.functional.normalize(features, dim=-1)
    distances = [(unit[:, one] - unit[:, other]).norm(dim=-1) for one, other in combinations(range(unit.shape[1]), 2)]
    return float(torch.stack(distances).mean())


def images(pictures: Pictures) -> list[Image.Image]:
    """Return pictures (N, H, W, 3) as a grader takes them."""
    return [Image.fromarray(picture) for picture in pictures]


def detail(pictures: Pictures) -> float:
    """Return the mean absolute Laplacian of the pictures' brightness in [0, 1]; blur takes from it, noise adds."""
    brightness = torch.from_numpy(pictures).float().mean(-1, keepdim=True).permute(0, 3, 1, 2) / 255  # (N, 1, H, W)
    kernel = torch.tensor(_LAPLACIAN)[None, None]  # (1, 1, 3, 3)
    return float(torch.nn.functional.conv2d(brightness, kernel).abs().mean())


def _apart(one: Pictures, other: Pictures) -> float:
    """Return the root mean square difference of pixels in [0, 1]."""
    return float(np.sqrt(np.square((one.astype(np.float64) - other) / 255).mean()))
