"""Trainings in one batch: each ends as it would have ended alone, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import BUNDLED_CLIP, DRAWING, random_pictures
from workers.engine.base_model import BaseModel
from workers.engine.errors import CovarianceMissing, Interrupted, PicturesInvalid, SuperclassInvalid, TrainingDiverged
from workers.engine.perfusion.cohort import step_together
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.perfusion.drawing import ValidationFacts
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training import Outcome, TrainingOrder, train_cohort
from workers.engine.perfusion.training_pictures import prepare_pictures

TOLERANCE = 2e-4  # of a learned number after a few steps: sums run in another order at another batch size


@dataclass
class Member:
    """One order, and what was heard of it."""

    order: TrainingOrder
    steps: list[int] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)


def member(
    base: BaseModel,
    folder: Path,
    number: int,
    *,
    stop_after: int | None = None,
    pictures: int = 2,
    superclass: str = "cat",
    resume_from: Path | None = None,
    **settings: object,
) -> Member:
    steps: list[int] = []
    checkpoints: list[int] = []
    place = folder / f"{number}"
    place.mkdir(exist_ok=True)
    order = TrainingOrder(
        pictures=random_pictures(pictures),
        superclass=superclass,
        config=base.perfusion.override(settings),
        seed=number,
        checkpoints=place,
        resume_from=resume_from,
        on_progress=lambda step, _steps, _loss: steps.append(step),
        on_checkpoint=lambda step, _path: checkpoints.append(step),
        should_stop=lambda: len(steps) == stop_after,
    )
    return Member(order, steps, checkpoints)


def train(base: BaseModel, *members: Member) -> list[Outcome]:
    outcomes = dict(train_cohort(base, [member.order for member in members]))
    return [outcomes[place] for place in range(len(members))]


def assert_close(one: Outcome, other: Outcome) -> None:
    assert isinstance(one, ConceptFile)
    assert isinstance(other, ConceptFile)
    for name, tensor in one.concept.tensors().items():
        torch.testing.assert_close(tensor, other.concept.tensors()[name], atol=TOLERANCE, rtol=TOLERANCE)


def test_trainings_of_different_settings_end_together_as_they_end_alone(tiny: BaseModel, tmp_path: Path):
    def members() -> list[Member]:
        return [
            member(tiny, tmp_path, 1, superclass="cat", batch_size=2),
            member(tiny, tmp_path, 2, superclass="teddy bear", key_lock="trained", steps=5),
            member(tiny, tmp_path, 3, superclass="dog", key_lock="global", gate_bias=0.6, pictures=3),
        ]

    together = members()
    for outcome, alone in zip(train(tiny, *together), members(), strict=True):
        assert_close(outcome, train(tiny, alone)[0])
    assert [member.steps for member in together] == [list(range(1, steps + 1)) for steps in (4, 5, 4)]
    assert [member.checkpoints for member in together] == [[2], [2, 4], [2]]


def test_each_of_a_cohort_is_validated_when_its_own_step_is_due(tiny: BaseModel, tmp_path: Path):
    facts = ValidationFacts(str(BUNDLED_CLIP), DRAWING)
    settings = tiny.perfusion.override({"validation_prompts": ["a {}", "the red {}"], "gate_biases": [0.5, 1.0]})
    base = replace(tiny, validation=facts, perfusion=settings)

    def members() -> list[Member]:
        return [
            member(base, tmp_path, 1, validate_every=3),
            member(base, tmp_path, 2, validate_every=2, key_lock="global", patience=1, steps=20),
        ]

    together = members()
    outcomes = train(base, *together)
    for outcome, one, alone in zip(outcomes, together, members(), strict=True):
        (expected,) = train(base, alone)
        assert_close(outcome, expected)
        assert isinstance(outcome, ConceptFile)
        assert isinstance(expected, ConceptFile)
        assert (outcome.steps, outcome.gate_bias, one.steps) == (expected.steps, expected.gate_bias, alone.steps)
        assert outcome.scores == pytest.approx(expected.scores, abs=0.01)


def test_who_stops_leaves_a_checkpoint_and_the_others_go_on(tiny: BaseModel, tmp_path: Path):
    leaver, stayer = member(tiny, tmp_path, 1, stop_after=3), member(tiny, tmp_path, 2)
    left, stayed = train(tiny, leaver, stayer)
    assert isinstance(left, Interrupted)
    assert left.step == 3
    assert_close(stayed, train(tiny, member(tiny, tmp_path, 2))[0])
    resumed = member(tiny, tmp_path, 1, resume_from=left.checkpoint)
    assert_close(train(tiny, resumed)[0], train(tiny, member(tiny, tmp_path, 1))[0])
    assert resumed.steps == [4]


def test_a_resumed_training_joins_one_that_begins(tiny: BaseModel, tmp_path: Path):
    (left,) = train(tiny, member(tiny, tmp_path, 1, stop_after=2))
    assert isinstance(left, Interrupted)
    late, early = member(tiny, tmp_path, 1, resume_from=left.checkpoint), member(tiny, tmp_path, 2)
    outcomes = train(tiny, late, early)
    assert (late.steps, early.steps) == ([3, 4], [1, 2, 3, 4])
    assert_close(outcomes[0], train(tiny, member(tiny, tmp_path, 1))[0])


def test_bad_input_costs_only_its_own_training(tiny: BaseModel, tmp_path: Path):
    members = [
        member(tiny, tmp_path, 1, pictures=0),
        member(tiny, tmp_path, 2),
        member(tiny, tmp_path, 3, superclass=""),
    ]
    empty, good, nameless = train(tiny, *members)
    assert isinstance(empty, PicturesInvalid)
    assert isinstance(nameless, SuperclassInvalid)
    assert_close(good, train(tiny, member(tiny, tmp_path, 2))[0])


def trainers(base: BaseModel, count: int) -> list[ConceptTrainer]:
    pictures = prepare_pictures(base, random_pictures(2), "cat", base.perfusion, seed=0)
    return [ConceptTrainer(base, pictures, "cat", base.perfusion, seed=seed) for seed in range(count)]


def poison_value(trainer: ConceptTrainer) -> None:
    trainer.concept.value_outputs.data[0] = torch.nan


def poison_target(trainer: ConceptTrainer) -> None:
    trainer.concept.target_input[0] = torch.nan


@pytest.mark.parametrize("poison", [poison_value, poison_target])
def test_one_that_diverges_spoils_nobody_elses_numbers(tiny: BaseModel, poison: Callable[[ConceptTrainer], None]):
    sick, healthy = trainers(tiny, 2)
    (_, alone) = trainers(tiny, 2)
    poison(sick)
    for _ in range(2):
        errors = step_together([sick, healthy])
        step_together([alone])
    assert isinstance(errors[0], TrainingDiverged)
    assert errors[1] is None
    torch.testing.assert_close(
        healthy.concept.value_outputs, alone.concept.value_outputs, atol=TOLERANCE, rtol=TOLERANCE
    )


def test_the_company_changes_neither_what_is_drawn_nor_the_target(tiny: BaseModel):
    alone, together = trainers(tiny, 1), trainers(tiny, 3)
    for _ in range(3):
        step_together(alone)
        step_together(together)
    assert torch.equal(alone[0].generator.get_state(), together[0].generator.get_state())
    torch.testing.assert_close(alone[0].concept.target_input, together[0].concept.target_input)


def test_nobody_trains_on_a_model_without_a_covariance(tiny: BaseModel, tmp_path: Path):
    with pytest.raises(CovarianceMissing):
        train(replace(tiny, covariance=None), member(tiny, tmp_path, 1))
