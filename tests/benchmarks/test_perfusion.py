"""The comparison with rivals: what is asked and judged, what is kept, what is chosen, and the page."""

from __future__ import annotations

import math
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.benchmarks.perfusion import cells, comparison, fitting, store
from tests.benchmarks.perfusion.__main__ import QUICK
from tests.benchmarks.perfusion.ablations import (
    ABLATIONS,
    SAME_PROMPTS,
)
from tests.benchmarks.perfusion.bench import Bench
from tests.benchmarks.perfusion.cell import ABLATION, DEFAULT, FEW, SCORE, SEARCH, Cell, Size, arms, bias_arms
from tests.benchmarks.perfusion.cells import measure
from tests.benchmarks.perfusion.comparison import compare, completed
from tests.benchmarks.perfusion.findings import Findings, add_figures
from tests.benchmarks.perfusion.fitting import RivalConfig, prior_pictures
from tests.benchmarks.perfusion.methods import CAPTION, FACTS, METHODS, MODELS, TEACHER, WHOLE, with_concept
from tests.benchmarks.perfusion.page import at_the_edge, write_page
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.plan import choose, scoring_cells, search_cells, without_the_rest
from tests.benchmarks.perfusion.prompts import alone, called, wordings
from tests.benchmarks.perfusion.rivals import (
    RARE,
)
from tests.benchmarks.perfusion.store import SCORES, Store
from tests.benchmarks.report import Report
from tests.benchmarks.subjects import subjects
from workers.engine.base_model import BaseModel
from workers.engine.errors import TrainingDiverged
from workers.engine.perfusion.concept import ConceptFile, KeyLock
from workers.engine.storybook.captions import fullest_caption, with_article
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import CLASSES, KINDS
from workers.engine.storybook.questions import stated
from workers.engine.storybook.sampling import ATTRIBUTES

SUNGLASSES = 1
TOY = Size(
    tuned=(),
    scored=(SUNGLASSES,),
    ablated=(SUNGLASSES,),
    few=(SUNGLASSES,),
    photos=2,
    wording_stride=7,
    seeds=1,
    fewer_seeds=1,
    steps=1,
    concept_steps=1,
    biases=(0.8,),
    ablated_biases=(0.8,),
    temperatures=(0.05,),
)
STUDENT = MODELS / "storybook-student"


@pytest.fixture(scope="module")
def storybook() -> BaseModel:
    return load_model(TEACHER)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory, storybook: BaseModel) -> Findings:
    students = {"student": STUDENT, "free student": tmp_path_factory.mktemp("none") / "free"}
    few_prompts = replace(storybook, prompts=storybook.prompts[:200])
    bench = Bench(Store.open(tmp_path_factory.mktemp("cells"), students, TOY), TOY, {TEACHER: few_prompts})
    compared = compare(bench, processes=1, until=math.inf)
    assert compared is not None
    return compared


@pytest.fixture
def bench(tmp_path: Path, storybook: BaseModel) -> Bench:
    return Bench(Store.open(tmp_path, {}, TOY), TOY, {TEACHER: storybook})


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_wordings_say_what_a_judge_can_read(kind: str):
    asked = wordings(kind)
    assert len({wording.text for wording in asked}) == len(asked) == 20
    assert len(alone(asked)) >= 11
    for wording in asked:
        assert all(value in ATTRIBUTES[name] for name, value in wording.due.items())
        said = wording.text.format(with_article(kind))
        assert any(stated(said)), "the text encoder knows these words"
        right = dict.fromkeys(ATTRIBUTES, "") | dict(wording.due)
        if wording.pair is not None:
            right |= dict(zip(("class", "right class"), reversed(wording.pair), strict=True))
        assert wording.share_right(right) == 1
        assert wording.share_right(dict.fromkeys(ATTRIBUTES, "")) == 0


def test_only_sunglasses_go_without_an_article():
    assert [called("<it>", kind) for kind in ("cat", "sunglasses")] == ["a <it>", "<it>"]
    assert called(f"{RARE} sunglasses", "sunglasses") == f"{RARE} sunglasses"
    assert "{} wearing blue sunglasses in the forest" in [wording.text for wording in wordings("cat")]


def test_the_models_own_pictures_are_drawn_once_and_charged_to_all_that_learn_from_them(
    bench: Bench, findings: Findings, monkeypatch: pytest.MonkeyPatch
):
    """`findings` has drawn sunglasses by now, so a training that says what they cost has not drawn them."""
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "draw", lambda *_: pytest.fail("drawn again"))
        settings = METHODS["Custom Diffusion"].settled
        result = measure(bench, Cell(SEARCH, "Custom Diffusion", settings, SUNGLASSES, 2))
        drawn = prior_pictures(bench.teacher, "sunglasses", RivalConfig(steps=1))
    assert result["prior_samples"] == drawn.samples > 25  # of one picture, of whose 25 steps most are guided
    assert result["seconds"] > drawn.seconds > 0
    assert {one["prior_samples"] for one in findings.of("DreamBooth-LoRA")} == {drawn.samples}
    assert {one["prior_samples"] for one in findings.of(WHOLE)} == {0}


def test_a_cell_that_diverges_is_kept_with_nothing_scored(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def diverge(*_: object) -> Personalised:
        raise TrainingDiverged("the loss is nan")

    monkeypatch.setitem(METHODS, WHOLE, replace(METHODS[WHOLE], learn=diverge))
    cell = Cell(SCORE, WHOLE, {}, SUNGLASSES, 2)
    result = measure(bench, cell)
    assert result["diverged"]
    assert result["scores"] == {arm: dict.fromkeys(SCORES, 0.0) for arm in arms(TOY, cell)}
    assert bench.store.find(cell) == result


def test_settings_are_chosen_on_other_individuals_than_are_scored():
    size = Size()
    assert len(size.tuned) == 4
    assert len(size.scored) == 12
    assert not set(size.tuned) & set(size.scored)
    assert set(size.ablated) | set(size.few) <= set(size.scored)
    assert {cell.individual for cell in search_cells(size)} == set(size.tuned)
    chosen = {name: method.settled for name, method in METHODS.items()}
    assert {cell.individual for cell in scoring_cells(size, chosen)} == set(size.scored)
    assert {cell.seeds(size) for cell in search_cells(size)} == {2}
    assert {cell.stage: cell.seeds(size) for cell in scoring_cells(size, chosen)} == {SCORE: 4, ABLATION: 2, FEW: 4}
    assert {cell.seeds(size, "bias 0.7") for cell in scoring_cells(size, chosen)} == {2}
    assert {len(method.grid) for method in METHODS.values()} == {8, 0}
    assert [name for name, method in METHODS.items() if not method.grid] == [
        "Perfusion, global",
        "Perfusion, trained K",
    ]
    assert all(method.settled in method.grid for method in METHODS.values() if not method.is_perfusion)


def searched(size: Size, best: int, diverging: int) -> dict[str, dict[str, Any]]:
    """Return results of a search whose best setting by far diverged on the last individual."""
    results = {}
    for cell in search_cells(size):
        place = METHODS[cell.method].grid.index(cell.settings)
        both = {best: (0.6, 0.6), diverging: (0.9, 0.9)}.get(place, (0.9, 0.2))
        diverged = place == diverging and cell.individual == size.tuned[-1]
        scores = dict.fromkeys(SCORES, 0.0) if diverged else dict(zip(("identity", "attributes"), both, strict=True))
        results[cell.key] = {"diverged": diverged, "scores": {DEFAULT: scores}}
    return results


def test_the_best_setting_that_never_diverged_is_chosen_by_both_scores():
    size = Size()
    chosen = choose(size, searched(size, best=5, diverging=2))
    assert chosen == {name: (method.grid or METHODS[WHOLE].grid)[5] for name, method in METHODS.items()}


def test_a_chosen_number_at_the_edge_of_its_grid_is_told():
    grid = METHODS["DreamBooth-LoRA"].grid
    assert at_the_edge({"lr": 1e-2, "prior": True}, grid) == ["lr 0.01 (of 0.0003 to 0.01)"]
    assert at_the_edge({"lr": 1e-3, "prior": False}, grid) == []


def test_the_dials_default_is_the_models_own():
    size = Size(biases=(0.4, 0.55), temperatures=(0.1,))
    for lock in KeyLock:
        own = FACTS.gate_bias[lock.value]
        assert bias_arms(size.biases, lock) == {0.4: "bias 0.4", 0.55: "bias 0.55"} | {own: DEFAULT}
    cell = Cell(SCORE, WHOLE, {}, 0, 5)
    assert arms(size, cell) == {
        DEFAULT: {},
        "bias 0.4": {"gate_bias": 0.4},
        "bias 0.55": {"gate_bias": 0.55},
        "temperature 0.1": {"gate_temperature": 0.1},
    }
    assert list(arms(size, replace(cell, stage=ABLATION, method=SAME_PROMPTS))) == [DEFAULT, "bias 0.7", "bias 0.85"]
    assert list(arms(size, replace(cell, stage=SEARCH))) == [DEFAULT]


def test_every_method_ablation_and_student_is_scored_and_on_the_page(findings: Findings, tmp_path: Path):
    report = Report()
    add_figures(report, findings)
    assert "Perfusion, local above DreamBooth-LoRA" in {target.figure for target in report.targets}
    page, plot = tmp_path / "docs" / "perfusion.md", tmp_path / "images" / "perfusion.png"
    write_page(findings, page, plot)
    text = page.read_text()
    for name in (*METHODS, CAPTION, *findings.ablations, "teacher", "student", "../images/perfusion.png"):
        assert f"| {name} |" in text or f"({name})" in text
    assert f"| {SAME_PROMPTS} | C is the identity |" in text
    assert "Missing, and so not measured: free student." in text
    assert "No training diverged." in text
    assert f"| {fullest_caption(subjects(2, KINDS)[SUNGLASSES].identity)} |" in text
    assert "Learned from 1 picture, by 1 individuals" in text
    assert plot.stat().st_size > 10_000


def test_the_page_is_there_before_the_ablations_are(findings: Findings, tmp_path: Path):
    compared = replace(findings, size=without_the_rest(TOY))
    write_page(compared, tmp_path / "page.md", tmp_path / "plot.png")
    text = (tmp_path / "page.md").read_text()
    assert "Ablations are not measured yet." in text
    assert "Learned from 1 picture" not in text
    for name in (*METHODS, CAPTION):
        assert f"| {name} |" in text
    assert not set(ABLATIONS) & {cell.method for cell in scoring_cells(compared.size, compared.chosen)}


def test_the_page_says_what_diverged(findings: Findings, tmp_path: Path):
    results = {key: dict(result) for key, result in findings.results.items()}
    (one,) = [key for key, result in results.items() if result["cell"]["method"] == "C is the identity"]
    results[one]["diverged"] = True
    write_page(replace(findings, results=results), tmp_path / "page.md", tmp_path / "plot.png")
    assert "* ablation: C is the identity," in (tmp_path / "page.md").read_text()


def test_what_was_measured_is_not_measured_again(bench: Bench):
    cell = Cell(SCORE, CAPTION, {}, SUNGLASSES, 2)
    first = measure(bench, cell)
    path = bench.store.folder / f"{cell.key}.json"
    before = path.stat().st_mtime_ns
    assert measure(bench, cell) == first
    assert path.stat().st_mtime_ns == before
    assert first["bytes"] == 0
    assert 0 <= first["scores"][DEFAULT]["identity"] <= 1


def test_another_students_weights_are_drawn_with_and_nothing_is_trained_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, cell = tmp_path / "student", Cell(SCORE, WHOLE, {}, SUNGLASSES, 2)
    teacher_alone = measure(bench, cell)
    (use,) = with_concept(bench.teacher, ConceptFile.load(bench.store.concept(cell))).uses
    assert (use.gate_bias, use.gate_temperature) == (FACTS.gate_bias["local"], FACTS.gate_temperature)
    shutil.copytree(STUDENT, folder)
    monkeypatch.setattr(cells, "METHODS", {})  # whoever trains now fails

    def with_student() -> Bench:
        return replace(bench, store=Store(bench.store.folder, {"student": folder}), opened=dict(bench.opened))

    assert with_student().store.find(cell) is None
    first = measure(with_student(), cell)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert with_student().store.find(cell) is None
    second = measure(with_student(), cell)
    assert first["scores"].pop("student") != second["scores"].pop("student")
    assert first == second == teacher_alone


def test_results_are_kept_apart_by_all_that_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def folder(size: Size = TOY) -> Path:
        return Store.open(tmp_path, {}, size).folder

    first = folder()
    sizes = [
        replace(TOY, seeds=3),
        replace(TOY, steps=3),
        replace(TOY, concept_steps=3),
        replace(TOY, wording_stride=3),
    ]
    others = [
        folder(size)
        for size in (
            *sizes,
            replace(TOY, biases=(0.3,)),
            replace(TOY, ablated_biases=()),
            replace(TOY, temperatures=(0.3,)),
        )
    ]
    judges = tmp_path / "judges"
    shutil.copytree(store.JUDGES, judges)
    (judges / "identity" / "config.json").write_text("{}")
    card = FACTS.model_copy(update={"perfusion": {**FACTS.perfusion, "steps": 399}})
    changes = {"VERSION": 0, "JUDGES": judges, "GRADER": judges, "TEACHER": STUDENT, "FACTS": card}
    for name, value in changes.items():
        with monkeypatch.context() as patched:
            patched.setattr(store, name, value)
            others.append(folder())
    assert len({first, *others}) == 1 + len(others)
    assert folder(replace(TOY, scored=(2,), photos=3)) == first  # which only says which cells there are


def test_where_the_time_is_up_there_are_no_findings(bench: Bench):
    assert compare(bench, processes=1, until=time.monotonic() - 1) is None
    assert [path.name for path in bench.store.folder.iterdir()] == ["measured.json"]


def test_what_waits_is_not_begun_once_something_failed():
    begun = []

    def work(thing: int) -> int:
        begun.append(thing)
        time.sleep(0.01)
        return 1 // thing

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(completed(pool, work, [1, 0, *range(1, 500)]))
    assert len(begun) < 100


def test_spawned_processes_can_import_what_they_do():
    """They import no package's `__main__`, so what they do must lie elsewhere."""
    assert comparison._measure.__module__ == comparison._open.__module__ == comparison.__name__
    assert pickle.loads(pickle.dumps(comparison._measure)) is comparison._measure


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


def test_the_most_telling_cells_come_first():
    stages = [cell.stage for cell in scoring_cells(Size(), {name: method.settled for name, method in METHODS.items()})]
    assert list(dict.fromkeys(stages)) == ["score", "ablation", "few"]
    assert stages == sorted(stages, key=["score", "ablation", "few"].index)


def test_the_quick_form_scores_a_creature_and_searches_nothing():
    shown = subjects(16, KINDS)
    assert {"cat", "fish"} <= {shown[k].identity.cls for k in QUICK.scored}
    assert {shown[k].identity.cls for k in QUICK.scored} <= set(CLASSES)
    assert not search_cells(QUICK)
    assert not set(QUICK.scored) & set(Size().tuned)
    assert all(ABLATIONS[name].beside in {WHOLE, *QUICK.ablations} for name in QUICK.ablations)


def test_the_caption_says_all_that_words_can():
    subject = subjects(1, KINDS)[0]
    assert subject.identity.cls in fullest_caption(subject.identity)
