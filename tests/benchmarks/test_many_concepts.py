"""The benchmark of several concepts in one picture, in its short form, and what it compares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from tests.benchmarks.families import ARRANGEMENTS, ROLES, families, lineup, looked_at, render
from tests.benchmarks.many_concepts import ROOT, main, naive_sum
from tests.benchmarks.subjects import CANDIDATES
from tests.engine.concepts import random_concept
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.judges import IdentityJudge


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_model(ROOT / "models" / "storybook")


def test_the_short_form_reports_every_member_of_every_picture(tmp_path: Path):
    main(["--quick", "--json", str(tmp_path / "many.json"), "--sheet", str(tmp_path / "many.png")])
    document = json.loads((tmp_path / "many.json").read_text())
    for name, arrangement in ARRANGEMENTS.items():
        for role in arrangement.roles:
            assert f"identity of the {role}, {name}" in document["baseline"]  # that of the captions
            assert f"identity of the {role}, {name}, naive sum" in document["figures"]
    assert "accessory, all three" in document["figures"]
    assert "right class, cat in sunglasses" not in document["figures"]
    assert {target["figure"] for target in document["targets"]} == {
        "identity over that of captions",
        "identity beyond the naive sum's",
    }
    assert (tmp_path / "many.png").exists()


def test_the_naive_sum_is_the_exact_edit_for_one_concept_and_another_for_two_alike(base: BaseModel):
    tom = random_concept(base, 1)
    rex = replace(random_concept(base, 2), target_input=0.7 * tom.target_input + random_concept(base, 3).target_input)
    one = ConceptUse("tom", tom, gate_bias=0.6, gate_temperature=0.15)
    prompts = [Prompt("<tom>", (one,)), Prompt("<tom> and <rex>", (one, replace(one, name="rex", concept=rex)))]
    exact = base.conditioner.condition(prompts)
    with naive_sum():
        naive = base.conditioner.condition(prompts)
    torch.testing.assert_close(naive.values[0], exact.values[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(naive.values[1], exact.values[1], atol=1e-2)
    torch.testing.assert_close(base.conditioner.condition(prompts).values, exact.values)  # and it is over


def test_members_of_a_family_differ_in_colour_and_their_candidates_do_not():
    (family,) = families(1)
    assert len({member.identity.colour for member in family.values()}) == len(ROLES)
    assert [member.identity.cls for member in family.values()] == list(ROLES)
    candidates = lineup(family, ARRANGEMENTS["all three"], "chair")
    assert len(candidates) == CANDIDATES


def test_the_judge_knows_renders_by_the_part_that_shows_them():

    (family,) = families(1)
    judge = IdentityJudge.load(ROOT / "models" / "storybook-judges")
    arrangement, truth = ARRANGEMENTS["cat and chair"], {role: who.identity for role, who in family.items()}
    pictures = render(Random(5), truth, arrangement, 12)
    for role, spot in arrangement.spots.items():
        candidates = [list(renders) for renders in lineup(family, arrangement, role)]
        assert judge.pick(looked_at(pictures, spot), candidates).count(0) >= 10
