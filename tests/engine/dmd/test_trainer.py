"""The trainer's rules: who learns from what, who stays as it is, and exact resumption. On the ring and on a U-Net."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.engine.dmd.ladder import MATCHING
from tests.engine.dmd.mixture import Nothing, Perceptron, Ring, ring_material, ring_schedule
from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.context import Context
from workers.engine.dmd.material import Material, Paired, PromptContexts
from workers.engine.dmd.networks import UNetScore
from workers.engine.dmd.processes import ALONE, Processes
from workers.engine.dmd.trainer import DistillationTrainer, learning_rate_share
from workers.engine.errors import SettingsInvalid, TrainingDiverged
from workers.engine.schedule import NoiseSchedule

SMALL = replace(MATCHING, steps=20, batch_size=8, critic_ratio=2)
EVERYTHING = replace(SMALL, regression_weight=0.25, match_pairs=True, gan_weight=0.01)


def network(seed: int = 0) -> Perceptron:
    torch.manual_seed(seed)
    return Perceptron(ring_schedule(), width=32)


def ring_trainer(
    config: DistillationConfig, *, seed: int = 0, processes: Processes = ALONE
) -> DistillationTrainer[Perceptron]:
    material = ring_material(pairs=16 if config.regression_weight else 0, real=16 if config.gan_weight else 0)
    return DistillationTrainer(Ring(ring_schedule()), network(), material, config, seed=seed, processes=processes)


def unet_trainer(
    base: BaseModel, config: DistillationConfig, *, processes: Processes = ALONE
) -> DistillationTrainer[UNetScore]:
    unet, schedule = base.denoiser.unet, base.denoiser.schedule
    student = UNetScore.copy_of(unet, schedule, autocast=False)
    if config.key_locked:
        student.lock_keys()
    contexts = PromptContexts(base.text, ["a red cat", "the dog"], size=base.native_size)
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    material = Material(
        (4, 8, 8),
        contexts,
        PromptContexts(base.text, [""], size=base.native_size).take(torch.tensor([0])),
        pairs=Paired(latents, contexts, noise=latents.flip(0)),
        real=Paired(latents, contexts),
    )
    teacher = UNetScore.view_of(unet, schedule, autocast=False)
    return DistillationTrainer(teacher, student, material, config, seed=0, processes=processes)


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def test_the_student_and_the_fake_score_start_as_one(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, SMALL)
    for other in (trainer.fake, trainer.averaged):
        assert changed(other, values(trainer.student)) == set()


def test_a_fake_score_that_equals_the_teacher_leaves_the_student_where_it_is(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, replace(SMALL, batch_size=2))
    before = values(trainer.student)
    trainer.step()
    assert trainer.signals.report()["matching_gradient"] == 0
    assert changed(trainer.student, before) == set()


def test_guidance_moves_a_student_whose_fake_score_equals_the_plain_teacher(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, replace(SMALL, batch_size=2, guidance=3.0))
    before = values(trainer.student)
    trainer.step()
    assert trainer.signals.report()["matching_gradient"] > 0
    assert changed(trainer.student, before)


def test_a_share_of_the_guidance_is_left_out_of_matching(tiny: BaseModel) -> None:
    def gradient(guidance: float, matching_guidance: float) -> float:
        config = replace(SMALL, batch_size=2, guidance=guidance, matching_guidance=matching_guidance)
        trainer = unet_trainer(tiny, config)
        trainer.step()
        return trainer.signals.report()["matching_gradient"]

    assert gradient(5.0, 0.5) == gradient(3.0, 1.0) > 0
    assert gradient(5.0, 0.0) == 0


def test_during_warm_up_the_fake_score_learns_and_the_student_waits() -> None:
    trainer = ring_trainer(replace(SMALL, critic_warmup=3))
    student, fake = values(trainer.student), values(trainer.fake)
    for _ in range(3):
        trainer.step()
    assert changed(trainer.student, student) == changed(trainer.averaged, student) == set()
    assert changed(trainer.fake, fake) == fake.keys()
    trainer.step()
    assert changed(trainer.student, student)


def test_plain_regression_leaves_the_fake_score_alone() -> None:
    trainer = ring_trainer(replace(SMALL, matching_weight=0.0, regression_weight=0.25))
    fake, student = values(trainer.fake), values(trainer.student)
    trainer.step()
    assert changed(trainer.fake, fake) == set()
    assert changed(trainer.student, student) == student.keys()
    assert trainer.signals.report().keys() == {
        "regression_loss",
        "student_gradient",
        "sample_mean",
        "sample_spread",
        "mean_swing",
    }


def test_regression_compares_what_the_teacher_sees_in_both(tiny: BaseModel) -> None:
    config = replace(SMALL, batch_size=2, matching_weight=0.0, regression_weight=1.0, feature_weight=1.0, steps=40)
    trainer = unet_trainer(tiny, config)
    teacher, apart = values(tiny.denoiser.unet), []
    for _ in range(4):
        for _ in range(10):
            trainer.step()
        apart.append(trainer.signals.report()["feature_loss"])
    assert apart[-1] < 0.9 * apart[0]
    assert changed(tiny.denoiser.unet, teacher) == set()
    assert all(parameter.grad is None for parameter in tiny.denoiser.unet.parameters())


def test_features_count_as_much_as_their_weight_says(tiny: BaseModel) -> None:
    learned = []
    for weight in (0.0, 1.0, 1.0, 2.0):
        trainer = unet_trainer(tiny, replace(SMALL, batch_size=2, regression_weight=1.0, feature_weight=weight))
        trainer.step()
        learned.append(values(trainer.student)["unet.conv_in.weight"])
    assert torch.equal(learned[1], learned[2])
    assert not torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[1], learned[3])


def test_features_of_a_teacher_that_has_none_are_refused() -> None:
    with pytest.raises(SettingsInvalid, match="the teacher has no features"):
        ring_trainer(replace(SMALL, regression_weight=0.25, feature_weight=1.0))


def test_nobody_but_the_learners_gets_a_gradient(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, replace(EVERYTHING, batch_size=2, guidance=3.0))
    teacher = values(tiny.denoiser.unet)
    trainer.step()
    assert changed(tiny.denoiser.unet, teacher) == set()
    assert trainer.head is not None
    for module in (tiny.denoiser.unet, trainer.averaged, trainer.student, trainer.fake, trainer.head):
        assert all(parameter.grad is None for parameter in module.parameters())


def test_the_fake_score_learns_as_often_as_the_ratio_says() -> None:
    for ratio in (1, 5):
        trainer = ring_trainer(replace(SMALL, critic_ratio=ratio))
        trainer.step()
        trainer.step()
        steps = [value for name, value in trainer.state().items() if name.startswith("critic/step/")]
        assert {float(step) for step in steps} == {2 * ratio}


def test_a_first_step_of_adam_is_the_learning_rate() -> None:
    trainer = ring_trainer(replace(SMALL, matching_weight=0.0, regression_weight=0.25, lr=1e-3))
    before = values(trainer.student)
    trainer.step()
    for name, parameter in trainer.student.named_parameters():
        moved = (parameter - before[name]).abs()
        torch.testing.assert_close(moved.median(), torch.tensor(1e-3), rtol=0.05, atol=0)


def test_learning_rates_rise_hold_and_fall() -> None:
    config = replace(SMALL, steps=100, warmup_share=0.1, decay_share=0.2)
    shares = [learning_rate_share(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[10:80] == [1.0] * 70
    assert shares[99] == pytest.approx(0.05)
    assert learning_rate_share(0, replace(SMALL, warmup_share=0.0)) == 1


def test_a_locked_students_keys_and_values_stay_the_teachers_to_the_bit(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, replace(EVERYTHING, batch_size=2, guidance=3.0, key_locked=True, weight_decay=0.1))
    teacher = {f"unet.{name}": value for name, value in values(tiny.denoiser.unet).items()}
    for _ in range(2):
        trainer.step()
    locked = trainer.student.locked().keys()
    assert changed(trainer.student, teacher) == teacher.keys() - locked
    assert changed(trainer.averaged, teacher) == teacher.keys() - locked
    kept = {name for name in trainer.state() if name.startswith(("student/", "average/"))}
    assert not any(name.endswith(tuple(locked)) for name in kept)


def test_a_free_students_keys_and_values_move(tiny: BaseModel) -> None:
    trainer = unet_trainer(tiny, replace(EVERYTHING, batch_size=2, guidance=3.0))
    before = values(trainer.student)
    trainer.step()
    assert changed(trainer.student, before) == before.keys()


def test_the_average_follows_and_forgets_the_start() -> None:
    config = replace(SMALL, matching_weight=0.0, regression_weight=0.25, ema=0.5)
    trainer = ring_trainer(config)
    expected = values(trainer.student)
    for decay in (0.1, 2 / 11, 0.25, 4 / 13):  # until the setting is reached
        trainer.step()
        now = values(trainer.student)
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    for name, average in trainer.averaged.named_parameters():
        torch.testing.assert_close(average.detach(), expected[name])


@pytest.mark.parametrize(
    "config",
    [EVERYTHING, replace(SMALL, student_timesteps=(999, 499), critic_warmup=2, decay_share=0.5, warmup_share=0.2)],
)
def test_a_trainer_restored_from_a_state_goes_on_bit_for_bit(config: DistillationConfig) -> None:
    whole = ring_trainer(config)
    for _ in range(3):
        whole.step()
    state = {name: tensor.detach().clone() for name, tensor in whole.state().items()}
    resumed = ring_trainer(config, seed=1)
    resumed.restore(state, 3)
    for _ in range(3):
        whole.step()
        resumed.step()
    expected = whole.state()
    assert resumed.state().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.state().items())
    assert resumed.signals.report() == whole.signals.report()


def test_a_state_survives_from_before_the_first_step() -> None:
    whole, resumed = ring_trainer(EVERYTHING), ring_trainer(EVERYTHING, seed=1)
    resumed.restore(whole.state(), 0)
    whole.step()
    resumed.step()
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in resumed.state().items())


def test_a_seed_decides_the_outcome() -> None:
    trainers = [ring_trainer(EVERYTHING, seed=seed) for seed in (1, 1, 2)]
    for trainer in trainers:
        trainer.step()
    first, same, other = (values(trainer.student) for trainer in trainers)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


class Broken:
    """A teacher that has lost its mind."""

    schedule: NoiseSchedule = ring_schedule()

    def predict_x0(self, x_t: Tensor, _timesteps: Tensor, _context: Context, /) -> Tensor:
        return x_t / 0.0


def test_divergence_is_told_and_not_learned_from() -> None:
    trainer = DistillationTrainer(Broken(), network(), ring_material(), SMALL, seed=0)
    before = values(trainer.student)
    with pytest.raises(TrainingDiverged, match="nan"):
        trainer.step()
    assert changed(trainer.student, before) == set()
    assert trainer.step_count == 0


class Listening(Perceptron):
    """Notes the timesteps of every prediction that it is to learn from; its copies note theirs in the same place."""

    learned: ClassVar[list[tuple[int, ...]]] = []

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, context: Context, /) -> Tensor:
        if torch.is_grad_enabled():
            self.learned.append(tuple(timesteps.unique().tolist()))
        return super().predict_x0(x_t, timesteps, context)


def test_in_several_steps_a_whole_batch_ends_at_one_step_and_every_step_gets_its_turn() -> None:
    Listening.learned.clear()
    told = (999, 749, 499, 249)
    config = replace(SMALL, student_timesteps=told, regression_weight=0.0, gan_weight=0.01)
    trainer = DistillationTrainer(
        Ring(ring_schedule()), Listening(ring_schedule()), ring_material(real=8), config, seed=0
    )
    for _ in range(20):
        trainer.step()
    # The last step of each of the student's draws, and nothing else.
    assert len(Listening.learned) == 20
    assert {timestep for (timestep,) in Listening.learned} == set(told)


def test_what_the_student_draws_does_not_depend_on_the_real_pictures() -> None:
    config = replace(SMALL, student_timesteps=(999, 499), gan_weight=0.01)
    drawn = []
    for shift in (0.0, 100.0):
        material = ring_material(real=8)
        real = Paired(torch.full((8, 2, 1, 1), shift), Nothing(8))
        trainer = DistillationTrainer(Ring(ring_schedule()), network(), replace(material, real=real), config, seed=3)
        trainer.step()
        drawn.append(trainer.signals.report()["sample_mean"])
    assert drawn[0] == drawn[1]


def test_a_discriminator_learns_to_tell_the_students_samples_from_real_ones() -> None:
    config = replace(SMALL, batch_size=64, gan_weight=1e-3, gan_critic_weight=1.0, critic_lr=3e-3, lr=1e-6, steps=60)
    trainer = ring_trainer(config)
    losses = []
    for _ in range(6):
        for _ in range(10):
            trainer.step()
        losses.append(trainer.signals.report()["tell_apart_loss"])
    assert losses[0] < 1.5  # two coins' worth, 2 ln 2, at first
    assert losses[-1] < 0.9 * losses[0]  # at the noisier half of the timesteps there is nothing to tell


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(SMALL, regression_weight=0.25), "no pairs"),
        (replace(SMALL, gan_weight=0.01), "no real pictures"),
    ],
)
def test_a_loss_without_anything_to_learn_from_is_refused(config: DistillationConfig, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        DistillationTrainer(Ring(ring_schedule()), network(), ring_material(), config, seed=0)


def test_signals_are_averages_over_the_steps_since_the_last_report() -> None:
    trainer = ring_trainer(EVERYTHING)
    for _ in range(4):
        trainer.step()
    report = trainer.signals.report()
    assert report.keys() == {
        "critic_gradient",
        "fake_score_loss",
        "fool_loss",
        "matching_gradient",
        "mean_swing",
        "regression_loss",
        "sample_mean",
        "sample_spread",
        "student_gradient",
        "tell_apart_loss",
    }
    assert all(math.isfinite(value) for value in report.values())
    assert trainer.signals.report() == {}
