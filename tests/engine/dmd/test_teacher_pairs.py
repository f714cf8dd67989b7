"""Teacher pairs: planned whole, drawn in shards by anyone, read back by their own teacher only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.conftest import load
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.teacher_pairs import PairPlan, TeacherPairs, draw_shard
from workers.engine.errors import Interrupted, SettingsInvalid, TeacherPairsInvalid
from workers.engine.sampling import initial_noise, sample_ddim

PROMPTS = ("a red cat", "the dog")


def make_plan(base: BaseModel, *, count: int = 5, shards: int = 2) -> PairPlan:
    return PairPlan.of(base, PROMPTS, count=count, seed=100, steps=3, guidance=2.0, shards=shards)


def draw(base: BaseModel, plan: PairPlan, index: int, folder: Path, *, batch_size: int = 2) -> Path:
    return draw_shard(
        base, plan, index, folder, batch_size=batch_size, on_progress=lambda *_: None, should_stop=lambda: False
    )


@pytest.fixture
def drawn(tiny: BaseModel, tmp_path: Path) -> PairPlan:
    """A plan whose folder is complete."""
    plan = make_plan(tiny)
    plan.save(tmp_path)
    for index in range(plan.shards):
        draw(tiny, plan, index, tmp_path)
    return plan


def test_every_pair_is_in_one_shard_and_shards_are_about_equal(tiny: BaseModel) -> None:
    for count, shards in ((5, 2), (7, 7), (100, 9)):
        plan = make_plan(tiny, count=count, shards=shards)
        parts = [plan.shard(index) for index in range(shards)]
        assert [pair for part in parts for pair in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.usefixtures("drawn")
def test_a_pair_is_the_noise_of_its_seed_and_what_guided_ddim_makes_of_it(tiny: BaseModel, tmp_path: Path) -> None:
    pairs = TeacherPairs.load(tiny, tmp_path)
    assert pairs.prompts == ("a red cat", "the dog", "a red cat", "the dog", "a red cat")
    assert torch.equal(pairs.noise, initial_noise(range(100, 105), (4, 8, 8)))
    with torch.no_grad():
        expected = sample_ddim(
            tiny.denoiser,
            pairs.noise,
            tiny.conditioner.condition([Prompt(prompt) for prompt in pairs.prompts]),
            tiny.conditioner.condition([Prompt("")] * 5),
            steps=3,
            guidance=[2.0] * 5,
            on_step=lambda: None,
            should_stop=lambda: False,
        )
    torch.testing.assert_close(pairs.latents, expected, atol=1e-4, rtol=1e-4)


def test_the_missing_shards_are_known_and_may_come_in_any_order(tiny: BaseModel, tmp_path: Path) -> None:
    plan = make_plan(tiny, shards=3)
    plan.save(tmp_path)
    assert plan.missing(tmp_path) == [0, 1, 2]
    draw(tiny, plan, 1, tmp_path)
    assert PairPlan.load(tmp_path).missing(tmp_path) == [0, 2]
    with pytest.raises(TeacherPairsInvalid, match="pairs-00000-of-00003"):
        TeacherPairs.load(tiny, tmp_path)
    for index in (2, 0):
        draw(tiny, plan, index, tmp_path)
    assert TeacherPairs.load(tiny, tmp_path).digest == plan.digest


def test_a_shard_drawn_again_holds_the_same_pairs(tiny: BaseModel, drawn: PairPlan, tmp_path: Path) -> None:
    before = load_file(drawn.path(tmp_path, 1))
    again = load_file(draw(tiny, drawn, 1, tmp_path))
    assert before.keys() == again.keys()
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_a_stop_between_two_steps_leaves_no_half_shard(tiny: BaseModel, tmp_path: Path) -> None:
    plan, done = make_plan(tiny), list[tuple[int, int]]()
    with pytest.raises(Interrupted) as stopped:
        draw_shard(
            tiny,
            plan,
            1,
            tmp_path,
            batch_size=2,
            on_progress=lambda *steps: done.append(steps),
            should_stop=lambda: len(done) == 4,
        )
    assert stopped.value.step == 4
    assert done[-1] == (4, 6)
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_another_teacher_are_refused(tmp_path: Path, tiny: BaseModel, drawn: PairPlan) -> None:
    other = load(build_tiny_pipeline(tmp_path / "other", seed=1))
    with pytest.raises(TeacherPairsInvalid, match="other weights"):
        TeacherPairs.load(other, tmp_path)
    with pytest.raises(TeacherPairsInvalid, match="other weights"):
        draw(other, drawn, 0, tmp_path)


def test_pairs_of_a_teacher_that_was_guided_elsewhere_are_refused(
    tmp_path: Path, tiny: BaseModel, drawn: PairPlan
) -> None:
    schedule = replace(tiny.denoiser.schedule, guidance_interval=(0.0, 0.5))
    limited = replace(tiny, denoiser=Denoiser(tiny.denoiser.unet, schedule))
    with pytest.raises(TeacherPairsInvalid, match="other weights or guidance"):
        TeacherPairs.load(limited, tmp_path)


def test_a_shard_of_another_plan_or_place_is_refused(tiny: BaseModel, drawn: PairPlan, tmp_path: Path) -> None:
    first, second = drawn.path(tmp_path, 0), drawn.path(tmp_path, 1)
    whole = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(TeacherPairsInvalid, match="another plan"):
        TeacherPairs.load(tiny, tmp_path)
    second.write_bytes(whole[:-10])
    with pytest.raises(TeacherPairsInvalid, match="cannot be read"):
        TeacherPairs.load(tiny, tmp_path)
    second.write_bytes(whole)
    replace(drawn, steps=4).save(tmp_path)
    with pytest.raises(TeacherPairsInvalid, match="another plan"):
        TeacherPairs.load(tiny, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"prompts": 3, "seeds": []})])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(TeacherPairsInvalid, match="not a plan"):
        PairPlan.load(tmp_path)


@pytest.mark.parametrize("shards", [0, 6])
def test_a_plan_has_from_one_shard_to_one_for_each_pair(tiny: BaseModel, shards: int) -> None:
    with pytest.raises(SettingsInvalid, match="shard"):
        make_plan(tiny, shards=shards)
