"""What each ablation changes of the whole method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.benchmarks.perfusion.ablations import (
    ABLATIONS,
    gradient_through_the_target,
    in_no_metric,
    in_the_metric_of_its_prompts,
    with_padding_counted,
)
from tests.benchmarks.perfusion.cell import Size
from tests.benchmarks.perfusion.methods import TEACHER, WHOLE
from tests.benchmarks.perfusion.plan import ablations_of
from tests.benchmarks.subjects import learn_from, subjects
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.tokens import TokenRow
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.storybook.drawing import load_model


@pytest.fixture(scope="module")
def storybook() -> BaseModel:
    return load_model(TEACHER)


def test_another_metric_is_another_metric(storybook: BaseModel):
    few = replace(storybook, prompts=storybook.prompts[:200])
    models = (few, in_no_metric(few), in_the_metric_of_its_prompts(few), with_padding_counted(few))
    assert len({base.covariance_sha256 for base in models}) == 4


def test_the_gradient_reaches_the_embedding_straight_through_the_target(storybook: BaseModel):
    config = replace(storybook.perfusion, batch_size=4, masked=False)
    pictures = prepare_pictures(storybook, subjects(1)[0].photos(), "cat", config, seed=0)
    which, rows = torch.tensor([0, 1, 1, 1]), [TokenRow((0, 1, 2), (("concept", place),)) for place in (1, 2)]
    encodings = torch.randn(
        (2, 3, storybook.text.width), generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    plain, through = (ConceptTrainer(storybook, pictures, "cat", config, seed=0) for _ in range(2))
    plain.follow(rows, encodings, which)
    assert not plain.concept.target_input.requires_grad
    for _ in range(2):  # the second step starts from a target that is off the first one's graph
        with gradient_through_the_target():
            through.follow(rows, encodings, which)
        (gradient,) = torch.autograd.grad(through.concept.target_input.sum(), encodings)
        torch.testing.assert_close(gradient[[0, 1], [1, 2], 0], torch.tensor([0.25, 0.75]))
        assert float(gradient[[0, 1], [2, 1]].abs().max()) == 0
    plain.follow(rows, encodings, which)
    torch.testing.assert_close(through.concept.target_input.detach(), plain.concept.target_input)


def test_with_the_gradient_through_the_target_another_embedding_is_learned(storybook: BaseModel):
    photos, config = subjects(1)[0].photos(), storybook.perfusion.override({"steps": 3, "masked": False})
    whole = learn_from(storybook, photos, "cat", config).concept
    with gradient_through_the_target():
        through = learn_from(storybook, photos, "cat", config).concept
    step = config.embedding_lr
    assert float((whole.embedding - through.embedding).abs().max()) > 0.5 * step


def test_an_ablation_that_changes_nothing_is_left_out():
    assert set(ABLATIONS) - set(ablations_of(Size(), {WHOLE: {}})) == {"training bias 0.75"}  # the card's
    assert set(ABLATIONS) - set(ablations_of(Size(), {WHOLE: {"gate_bias": 0.6}})) == {"training bias 0.6"}
