"""The comparison with rivals: what each method changes, what is asked and judged, what is chosen, and the page."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.perfusion.__main__ import QUICK, compare
from tests.benchmarks.perfusion.ablations import ABLATIONS, in_no_metric, with_padding_counted
from tests.benchmarks.perfusion.cells import DEFAULT, SCORE, SEARCH, Bench, Cell, Place, Size, measure
from tests.benchmarks.perfusion.intervals import lift, mean_of
from tests.benchmarks.perfusion.methods import CAPTION, METHODS
from tests.benchmarks.perfusion.page import Findings, add_figures, write_page
from tests.benchmarks.perfusion.plan import choose, scored, scoring_cells, search_cells, tuning
from tests.benchmarks.perfusion.prompts import alone, wordings
from tests.benchmarks.perfusion.rivals import (
    WORD,
    RivalConfig,
    custom_diffusion,
    dreambooth_lora,
    textual_inversion,
    with_word,
)
from tests.benchmarks.report import Report
from tests.benchmarks.subjects import subjects
from workers.engine.base_model import BaseModel
from workers.engine.dmd.networks import weights_digest
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.questions import stated
from workers.engine.storybook.sampling import ATTRIBUTES

ROOT = Path(__file__).parents[2]
TOY = Size(individuals=2, tuning_stride=2, wording_stride=6, seeds=1, steps=1, concept_steps=1, trials=1, photos=(2,))
RIVAL = RivalConfig(steps=2, batch_size=2, lr=1e-2)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    place = Place(tmp_path_factory.mktemp("cells"), tmp_path_factory.mktemp("none") / "free")
    compared = compare(place, TOY, processes=1, until=math.inf)
    assert compared is not None
    return compared


@pytest.fixture(scope="module")
def storybook() -> BaseModel:
    return load_model(ROOT / "models" / "storybook")


def cross_weights(base: BaseModel) -> torch.Tensor:
    return torch.cat([base.projections.keys, base.projections.values])


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_wordings_say_what_a_judge_can_read(kind: str):
    asked = wordings(kind)
    assert len({wording.text for wording in asked}) == len(asked) == 20
    assert len(alone(asked)) >= 11
    for wording in asked:
        assert all(value in ATTRIBUTES[name] for name, value in wording.due.items())
        said = wording.text.format(f"a {kind}")
        assert any(stated(said)), "the text encoder knows these words"
        right = dict.fromkeys(ATTRIBUTES, "") | dict(wording.due)
        if wording.pair is not None:
            right |= dict(zip(("class", "right class"), reversed(wording.pair), strict=True))
        assert wording.share_right(right) == 1
        assert wording.share_right(dict.fromkeys(ATTRIBUTES, "")) == 0


def test_textual_inversion_learns_a_word_and_nothing_else(storybook: BaseModel):
    photos = subjects(1)[0].photos()
    made = textual_inversion(storybook, photos, "cat", RIVAL, seed=0)
    assert torch.equal(cross_weights(made.base), cross_weights(storybook))
    start, token = with_word(storybook, "cat")
    (learned,), (before,) = made.base.text.token_embeddings(token), start.text.token_embeddings(token)
    (cat,) = storybook.text.token_embeddings(storybook.text.tokens("cat")[-1])
    assert torch.equal(before, cat)
    assert not torch.equal(learned, before)
    assert made.bytes == 2 * storybook.text.width
    assert made.base.text.tokens(f"a {WORD} hat").count(token) == 1
    assert made.base.text.tokens("a cat") == storybook.text.tokens("a cat")


def test_a_new_word_says_at_first_what_its_superclass_says(storybook: BaseModel):
    taught, _ = with_word(storybook, "cat")
    rows = [taught.text.row(taught.text.tokens(prompt)) for prompt in (f"a {WORD} in the snow", "a cat in the snow")]
    one, other = taught.text.encode(rows)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("prior", [False, True])
def test_dreambooth_learns_low_rank_updates_of_all_attention(
    storybook: BaseModel, monkeypatch: pytest.MonkeyPatch, prior: bool
):
    monkeypatch.setattr("tests.benchmarks.perfusion.rivals._PRIOR_STEPS", 1)
    config = RivalConfig(steps=2, batch_size=2, lr=1e-2, rank=2, prior=prior)
    made = dreambooth_lora(storybook, subjects(1)[0].photos(), "cat", config, seed=0)
    before, after = (dict(base.denoiser.unet.named_parameters()) for base in (storybook, made.base))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".attn1." in name or ".attn2." in name for name in changed)
    for name in changed:
        assert int(torch.linalg.matrix_rank(after[name] - before[name], atol=1e-6)) <= config.rank
    assert made.bytes % 2 == 0
    assert not torch.equal(cross_weights(made.base), cross_weights(storybook))


def test_custom_diffusion_learns_keys_and_values_and_a_word(storybook: BaseModel):
    made = custom_diffusion(storybook, subjects(1)[0].photos(), "cat", RIVAL, seed=0)
    before, after = (dict(base.denoiser.unet.named_parameters()) for base in (storybook, made.base))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".attn2.to_k" in name or ".attn2.to_v" in name}
    assert made.bytes == 2 * (sum(before[name].numel() for name in changed) + storybook.text.width)


def test_a_rivals_training_is_its_seeds(storybook: BaseModel):
    photos = subjects(1)[0].photos()
    weights = [cross_weights(dreambooth_lora(storybook, photos, "cat", RIVAL, seed=seed).base) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_base_model_is_left_as_it_was(storybook: BaseModel):
    before = weights_digest(storybook.denoiser.unet), storybook.text.fingerprint()
    custom_diffusion(storybook, subjects(1)[0].photos(), "cat", RIVAL, seed=0)
    assert (weights_digest(storybook.denoiser.unet), storybook.text.fingerprint()) == before


def test_settings_are_chosen_on_other_individuals_than_are_scored():
    size = Size()
    assert len(tuning(size)) == 4
    assert len(scored(size)) == 12
    assert not set(tuning(size)) & set(scored(size))
    assert {cell.individual for cell in search_cells(size)} == set(tuning(size))
    chosen = {name: method.settled for name, method in METHODS.items()}
    assert {cell.individual for cell in scoring_cells(size, chosen)} == set(scored(size))
    assert all(len(method.grid) == size.trials for method in METHODS.values())


def test_the_best_setting_is_chosen_by_both_scores():
    size = Size(individuals=4)
    results = {}
    for cell in search_cells(size):
        best = cell.settings == METHODS[cell.method].grid[5]
        scores = {"identity": 0.6, "attributes": 0.6} if best else {"identity": 0.9, "attributes": 0.2}
        results[cell.key] = {"scores": {DEFAULT: scores}}
    assert choose(size, results) == {name: method.grid[5] for name, method in METHODS.items()}


def test_every_method_ablation_and_student_is_scored_and_on_the_page(findings: Findings, tmp_path: Path):
    report = Report()
    add_figures(report, findings)
    assert "Perfusion, local above DreamBooth-LoRA, least" in {target.figure for target in report.targets}
    page, plot = tmp_path / "docs" / "perfusion.md", tmp_path / "images" / "perfusion.png"
    write_page(findings, page, plot)
    text = page.read_text()
    for name in (*METHODS, CAPTION, *ABLATIONS, "key-locked student", "../images/perfusion.png"):
        assert name in text
    assert plot.stat().st_size > 10_000


def test_what_was_measured_is_not_measured_again(tmp_path: Path):
    bench = Bench(Place(tmp_path, tmp_path / "free"), TOY)
    cell = Cell(SCORE, CAPTION, {}, 1, 2)
    first = measure(bench, cell)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    assert measure(bench, cell) == first
    assert path.stat().st_mtime_ns == before
    assert first["bytes"] == 0
    assert 0 <= first["scores"][DEFAULT]["identity"] <= 1


def test_where_the_time_is_up_there_are_no_findings(tmp_path: Path):
    place = Place(tmp_path, tmp_path / "free")
    assert compare(place, TOY, processes=1, until=time.monotonic() - 1) is None
    assert not list(tmp_path.iterdir())


def test_a_cells_name_says_all_that_it_depends_on():
    cells = [
        Cell(SEARCH, "a", {"lr": 1}, 0, 5),
        Cell(SCORE, "a", {"lr": 1}, 0, 5),
        Cell(SCORE, "b", {"lr": 1}, 0, 5),
        Cell(SCORE, "a", {"lr": 2}, 0, 5),
        Cell(SCORE, "a", {"lr": 1}, 1, 5),
        Cell(SCORE, "a", {"lr": 1}, 0, 1),
    ]
    assert len({cell.key for cell in cells}) == len(cells)


def test_a_curve_lies_above_a_point_by_what_it_has_more_at_the_points_text_score():
    curve = [(np.full(6, text), np.full(6, image)) for text, image in ((0.2, 0.9), (0.8, 0.3))]
    assert lift(curve, (np.full(6, 0.5), np.full(6, 0.4))).value == pytest.approx(0.2)
    assert lift(curve, (np.full(6, 0.1), np.full(6, 0.4))).value == pytest.approx(0.5)


def test_a_curve_is_given_nothing_where_it_does_not_reach():
    curve = [(np.full(6, text), np.full(6, image)) for text, image in ((0.2, 0.9), (0.8, 0.5))]
    assert lift(curve, (np.full(6, 0.95), np.full(6, 0.4))).value == pytest.approx(-0.4)


def test_an_interval_holds_the_mean_and_shrinks_with_agreement():
    spread, same = mean_of(np.array([0.0, 1.0] * 6)), mean_of(np.full(12, 0.5))
    assert spread.low < spread.value == 0.5 < spread.high
    assert (same.low, same.high) == (0.5, 0.5)


def test_another_metric_is_another_metric(storybook: BaseModel):
    models = (storybook, in_no_metric(storybook), with_padding_counted(storybook))
    assert len({base.covariance_sha256 for base in models}) == 3


def test_the_quick_form_learns_on_nobody_that_it_scores():
    assert scored(QUICK)
    assert QUICK.trials == 1


def test_the_caption_says_all_that_words_can():
    subject = subjects(1, KINDS)[0]
    assert subject.identity.cls in fullest_caption(subject.identity)
