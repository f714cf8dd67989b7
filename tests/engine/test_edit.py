"""The edit against published values of the single-concept formula, its properties, and slow references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workers.engine.perfusion.edit import apply_edit, edit_coefficients, target_cosines

TRAIN, RENDER = (0.75, 0.10), (0.70, 0.15)  # bias, temperature


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


WEIGHT = (torch.arange(12, dtype=torch.float64).reshape(3, 4) - 5) / 10
METRIC = torch.linalg.inv(torch.diag(doubles(1, 2, 4, 8)) + 0.5)
ENCODINGS = torch.sin(torch.arange(40, dtype=torch.float64)).reshape(2, 5, 4)
SUPERCLASS = torch.cos(torch.arange(40, dtype=torch.float64)).reshape(2, 5, 4)
AT = (torch.arange(2), torch.tensor([2, 3]))  # where the concept's token is


def edit(
    encodings: Tensor, targets: Tensor, outputs: Tensor, dial: tuple[float, float], *, metric: Tensor = METRIC,
    weight: Tensor = WEIGHT,
) -> Tensor:  # fmt: skip
    """Edit encodings (B, N, D) with the same concepts, targets (J, D) and outputs (J, O), in every sample."""
    batch, concepts = len(encodings), len(targets)
    targets, outputs = targets.expand(batch, -1, -1), outputs.expand(batch, -1, -1)
    bias, temperature = (encodings.new_full((batch, concepts), setting) for setting in dial)
    removal, gate = edit_coefficients(encodings, targets, metric, bias, temperature)
    return apply_edit(encodings @ weight.T, removal, gate, targets @ weight.T, outputs)


def random_problem(concepts: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Encodings (2, 5, 6), targets (J, 6), outputs (J, 4), a metric (6, 6) and a weight (4, 6)."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = draw(6, 6)
    return draw(2, 5, 6), draw(concepts, 6), draw(concepts, 4), root @ root.T + torch.eye(6), draw(4, 6)


def test_the_first_training_step_gives_the_published_values() -> None:
    target, output = ENCODINGS[AT].mean(0), WEIGHT @ SUPERCLASS[AT].mean(0)
    edited = edit(ENCODINGS, target[None], output[None], TRAIN)
    torch.testing.assert_close(target, doubles(0.77039246, 0.70601517, -0.00746921, -0.71408644), atol=1e-8, rtol=0)
    torch.testing.assert_close(output, doubles(0.35577349, -0.20874491, -0.77326331), atol=1e-8, rtol=0)
    torch.testing.assert_close(edited[0, 2], doubles(0.67476642, -0.29778861, -1.27034363), atol=1e-8, rtol=0)
    assert float(edited.sum()) == pytest.approx(-1.18227085, abs=1e-8)
    assert float(edited.abs().sum()) == pytest.approx(12.25892227, abs=1e-8)


def test_the_second_step_and_rendering_give_the_published_values() -> None:
    first, output = ENCODINGS[AT].mean(0), WEIGHT @ SUPERCLASS[AT].mean(0)
    second = torch.sin(0.7 * torch.arange(40, dtype=torch.float64)).reshape(2, 5, 4)
    target = 0.99 * first + 0.01 * second[AT].mean(0)
    torch.testing.assert_close(target, doubles(0.75754443, 0.69456315, -0.00896858, -0.70496152), atol=1e-8, rtol=0)
    assert float(edit(second, target[None], output[None], TRAIN).sum()) == pytest.approx(-0.75817711, abs=1e-8)
    assert float(edit(ENCODINGS, target[None], output[None], RENDER).sum()) == pytest.approx(-1.21864842, abs=1e-8)
    assert float(target @ METRIC @ target) == pytest.approx(0.61164038, abs=1e-8)
    alignment = ENCODINGS[0] @ METRIC @ target / 0.61164038
    published = doubles(0.169176, -1.051528, 1.205474, -0.524372, -0.519969)
    torch.testing.assert_close(alignment, published, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dial", "gate"), [(RENDER, 0.880797), (TRAIN, 0.924142)])
def test_a_token_at_the_target_maps_to_the_gated_target_output(dial: tuple[float, float], gate: float) -> None:
    _, targets, outputs, metric, weight = random_problem(1)
    edited = edit(targets[None], targets, outputs, dial, metric=metric, weight=weight)
    torch.testing.assert_close(edited[0], gate * outputs, atol=1e-6, rtol=0)


def test_a_token_orthogonal_to_the_target_keeps_its_projection_but_for_the_closed_gates_leak() -> None:
    encodings, targets, outputs, metric, weight = random_problem(1)
    along = encodings @ metric @ targets[0] / (targets[0] @ metric @ targets[0])
    orthogonal = encodings - along[..., None] * targets[0]
    edited = edit(orthogonal, targets, outputs, RENDER, metric=metric, weight=weight)
    leak = torch.sigmoid(doubles(-0.70 / 0.15)) * outputs[0]
    torch.testing.assert_close(edited, orthogonal @ weight.T + leak, atol=1e-12, rtol=0)


def test_without_a_gate_the_edit_is_the_rank_one_weight_of_rome() -> None:
    encodings, targets, outputs, metric, weight = random_problem(1)
    whitened = metric @ targets[0]
    rome = weight + torch.outer(outputs[0] - weight @ targets[0], whitened) / (targets[0] @ whitened)
    removal, _ = edit_coefficients(encodings, targets.expand(2, -1, -1), metric, encodings.new_ones(2, 1),
                                   encodings.new_ones(2, 1))  # fmt: skip
    ungated = apply_edit(encodings @ weight.T, removal, removal, (targets @ weight.T).expand(2, -1, -1),
                         outputs.expand(2, -1, -1))  # fmt: skip
    torch.testing.assert_close(ungated, encodings @ rome.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(rome @ targets[0], outputs[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("concepts", [1, 3])
def test_the_scale_of_the_covariance_does_not_matter(concepts: int) -> None:
    encodings, targets, outputs, metric, weight = random_problem(concepts)
    edited = edit(encodings, targets, outputs, RENDER, metric=metric, weight=weight)
    scaled = edit(encodings, targets, outputs, RENDER, metric=metric / 37, weight=weight)
    torch.testing.assert_close(edited, scaled, atol=1e-10, rtol=0)


@pytest.mark.parametrize("concepts", [1, 2, 3])
def test_the_projection_equals_the_route_over_a_metric_orthonormal_basis(concepts: int) -> None:
    encodings, targets, outputs, metric, weight = random_problem(concepts)
    factor = torch.linalg.cholesky(metric)
    basis = torch.linalg.solve_triangular(factor.T, torch.linalg.qr(factor.T @ targets.T).Q, upper=True)  # (D, J)
    beside = encodings - encodings @ metric @ basis @ basis.T
    energy = (targets @ metric * targets).sum(-1)
    gate = torch.sigmoid((encodings @ metric @ targets.T / energy - 0.70) / 0.15)
    edited = edit(encodings, targets, outputs, RENDER, metric=metric, weight=weight)
    torch.testing.assert_close(edited, beside @ weight.T + gate @ outputs, atol=1e-9, rtol=0)


def test_padding_with_zero_concepts_changes_nothing() -> None:
    encodings, targets, outputs, metric, weight = random_problem(1)
    padded = edit(
        encodings,
        torch.cat([targets, torch.zeros(2, 6, dtype=torch.float64)]),
        torch.cat([outputs, torch.zeros(2, 4, dtype=torch.float64)]),
        RENDER,
        metric=metric,
        weight=weight,
    )
    alone = edit(encodings, targets, outputs, RENDER, metric=metric, weight=weight)
    torch.testing.assert_close(padded, alone, atol=1e-14, rtol=0)


@pytest.mark.parametrize("concepts", [1, 2])
def test_gradients_agree_with_finite_differences(concepts: int) -> None:
    encodings, targets, outputs, metric, weight = random_problem(concepts)
    inputs = (encodings.requires_grad_(), targets, outputs.requires_grad_())
    assert torch.autograd.gradcheck(lambda e, i, o: edit(e, i, o, TRAIN, metric=metric, weight=weight), inputs)


def test_cosines_are_measured_in_the_metric_and_ignore_length() -> None:
    _, targets, _, metric, _ = random_problem(2)
    cosines = target_cosines(torch.stack([targets[0], -3 * targets[0], targets[1]]), metric)
    expected = targets[0] @ metric @ targets[1]
    expected = expected / ((targets[0] @ metric @ targets[0]) * (targets[1] @ metric @ targets[1])).sqrt()
    torch.testing.assert_close(cosines[0], torch.stack([doubles(1)[0], doubles(-1)[0], expected]), atol=1e-12, rtol=0)
