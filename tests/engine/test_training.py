"""Perfusion training on the miniature pipeline: what moves, what does not, and exact resumption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engine.concepts import random_concept
from tests.engine.conftest import random_pictures
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.errors import (
    CheckpointMismatch,
    CovarianceMissing,
    Interrupted,
    PicturesInvalid,
    SuperclassInvalid,
    TrainingDiverged,
)
from workers.engine.perfusion.checkpoint import Checkpoint
from workers.engine.perfusion.cohort import masked_squared_error, step_together
from workers.engine.perfusion.concept import ConceptFile, KeyLock
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.trainer import ConceptTrainer, initial_concept
from workers.engine.perfusion.training import TrainingOrder, train_concept
from workers.engine.perfusion.training_pictures import prepare_pictures


class Events:
    """What a training reports; asks for a stop once it has heard of step ``stop_after``."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.progress: list[tuple[int, int, Mapping[str, float]]] = []
        self.checkpoints: list[tuple[int, Path]] = []
        self.previews: list[tuple[int, Path]] = []
        self.stop_after = stop_after

    def train(
        self,
        base: BaseModel,
        folder: Path,
        *,
        config: PerfusionConfig | None = None,
        seed: int = 0,
        superclass: str = "cat",
        pictures: Sequence[Image.Image] | None = None,
        resume_from: Path | None = None,
    ) -> ConceptFile:
        order = TrainingOrder(
            pictures=random_pictures(3) if pictures is None else pictures,
            superclass=superclass,
            config=config or base.perfusion,
            seed=seed,
            checkpoints=folder,
            resume_from=resume_from,
            on_progress=lambda *progress: self.progress.append(progress),
            on_checkpoint=lambda step, path: self.checkpoints.append((step, path)),
            on_preview=lambda step, path: self.previews.append((step, path)),
            should_stop=lambda: self.stop_after == (self.progress[-1][0] if self.progress else 0),
        )
        return train_concept(base, order)


def trainer(base: BaseModel, config: PerfusionConfig, *, superclass: str = "cat") -> ConceptTrainer:
    pictures = prepare_pictures(base, random_pictures(2), superclass, config, seed=0)
    return ConceptTrainer(base, pictures, superclass, config, seed=0)


def step(training: ConceptTrainer) -> float:
    (error,) = step_together([training])
    if error is not None:
        raise error
    return training.loss


def assert_same(one: ConceptFile, other: ConceptFile) -> None:
    for name, tensor in one.concept.tensors().items():
        assert torch.equal(tensor, other.concept.tensors()[name]), name
    assert one.scores == other.scores


def test_a_concept_starts_as_its_superclass(tiny: BaseModel) -> None:
    start = initial_concept(tiny, "teddy bear", ["a {}"])
    with torch.no_grad():
        spelled = tiny.conditioner.encode([Prompt("a teddy bear")]).value_encodings[0, 3]  # begin, a, teddy, bear
    torch.testing.assert_close(start.superclass_encoding, spelled)
    assert torch.equal(start.target_input, start.superclass_encoding)
    assert torch.equal(start.value_outputs, tiny.projections.values @ start.superclass_encoding)
    assert torch.equal(start.embedding, tiny.text.token_embeddings(tiny.text.tokens("bear")[0])[0])


def test_a_step_moves_the_learned_vectors_and_the_target_and_nothing_else(tiny: BaseModel) -> None:
    before = [parameter.clone() for parameter in tiny.denoiser.unet.parameters()]
    training = trainer(tiny, tiny.perfusion)
    start = {name: tensor.detach().clone() for name, tensor in training.concept.tensors().items()}
    step(training)
    step(training)
    moved = {name for name, tensor in training.concept.tensors().items() if not torch.equal(tensor, start[name])}
    assert moved == {"value_outputs", "embedding", "target_input"}
    assert all(torch.equal(*pair) for pair in zip(before, tiny.denoiser.unet.parameters(), strict=True))


def test_the_target_follows_the_concepts_encoding_by_its_moving_average(tiny: BaseModel) -> None:
    config = replace(tiny.perfusion, templates=("a {}",), target_input_decay=0.9)
    training = trainer(tiny, config)
    start = training.concept.target_input.clone()
    training.concept.embedding.data.add_(1.0)
    with torch.no_grad():
        encoding = training.base.conditioner.encode([training._prompt("a {}")]).value_encodings[0, 2]
    step(training)
    torch.testing.assert_close(training.concept.target_input, 0.9 * start + 0.1 * encoding)


def test_the_first_steps_of_adam_are_the_two_learning_rates(tiny: BaseModel) -> None:
    config = replace(tiny.perfusion, value_lr=0.03, embedding_lr=0.006)
    training = trainer(tiny, config)
    start = {name: tensor.detach().clone() for name, tensor in training.concept.tensors().items()}
    step(training)
    for name, rate in (("value_outputs", 0.03), ("embedding", 0.006)):
        moved = (training.concept.tensors()[name] - start[name]).abs()
        torch.testing.assert_close(moved[moved > 0].median(), torch.tensor(rate), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("decay_share", "shares"), [(0.0, [1, 1, 1, 1]), (0.5, [1, 1, 1, 0.5]), (1.0, [1, 0.75, 0.5, 0.25])]
)
def test_both_rates_fall_to_nothing_over_the_last_share_of_the_steps(
    tiny: BaseModel, decay_share: float, shares: list[float]
) -> None:
    config = replace(tiny.perfusion, steps=4, value_lr=0.04, embedding_lr=0.008, decay_share=decay_share)
    training, rates = trainer(tiny, config), []
    for _ in shares:
        step(training)
        rates.append([group["lr"] for group in training.optimizer.param_groups])
    assert rates == [[pytest.approx(0.04 * share), pytest.approx(0.008 * share)] for share in shares]


def test_training_lowers_the_loss_on_noise_it_has_not_seen(tiny: BaseModel) -> None:
    config = PerfusionConfig(batch_size=32, templates=("a {}",), masked=False, flip=False)
    pictures = prepare_pictures(tiny, random_pictures(1), "cat", config, seed=0)

    def unseen_loss(trained: ConceptTrainer) -> float:
        probe = ConceptTrainer(tiny, pictures, "cat", config, seed=99)
        for name, tensor in trained.concept.tensors().items():
            probe.concept.tensors()[name].data.copy_(tensor)
        return step(probe)

    training = ConceptTrainer(tiny, pictures, "cat", config, seed=0)
    before = unseen_loss(training)
    for _ in range(15):
        step(training)
    assert unseen_loss(training) < before


def test_a_training_resumed_from_its_checkpoint_ends_bit_for_bit_as_an_unbroken_one(
    tiny: BaseModel, tmp_path: Path
) -> None:
    config = replace(tiny.perfusion, steps=7, checkpoint_every=3, decay_share=0.8)
    whole, resumed = Events(), Events()
    expected = whole.train(tiny, tmp_path, config=config)
    assert [step for step, _ in whole.checkpoints] == [3, 6]
    ended = resumed.train(tiny, tmp_path, config=config, resume_from=whole.checkpoints[0][1])
    assert_same(ended, expected)
    assert resumed.progress == whole.progress[3:]


@pytest.mark.parametrize("stop_after", [0, 2, 3])
def test_a_stop_leaves_a_checkpoint_that_loses_no_step(tiny: BaseModel, tmp_path: Path, stop_after: int) -> None:
    expected = Events().train(tiny, tmp_path)
    with pytest.raises(Interrupted) as stopped:
        Events(stop_after=stop_after).train(tiny, tmp_path)
    assert stopped.value.step == stop_after
    resumed = Events()
    assert_same(resumed.train(tiny, tmp_path, resume_from=stopped.value.checkpoint), expected)
    assert [step for step, *_ in resumed.progress] == list(range(stop_after + 1, 5))


def test_a_training_that_goes_on_from_a_concept_starts_where_that_ended(tiny: BaseModel, tmp_path: Path) -> None:
    ended = Events().train(tiny, tmp_path).concept
    pictures = prepare_pictures(tiny, random_pictures(3), "cat", tiny.perfusion, seed=0)
    training = ConceptTrainer(tiny, pictures, "cat", tiny.perfusion, seed=1, start=ended)
    assert training.concept.digest == ended.digest
    before = ended.value_outputs.clone()
    step(training)
    assert training.concept.digest != ended.digest
    assert torch.equal(ended.value_outputs, before)


def test_its_checkpoints_belong_to_what_it_started_from(tiny: BaseModel) -> None:
    pictures = prepare_pictures(tiny, random_pictures(2), "cat", tiny.perfusion, seed=0)
    starts = [None, random_concept(tiny, 1), random_concept(tiny, 2)]
    identities = {
        ConceptTrainer(tiny, pictures, "cat", tiny.perfusion, seed=0, start=start).identity for start in starts
    }
    assert len(identities) == 3


@pytest.mark.parametrize("learned", [False, True])
def test_learned_keys_go_on_from_learned_or_locked_ones(tiny: BaseModel, learned: bool) -> None:
    start = random_concept(tiny, 1, keys=learned)
    pictures = prepare_pictures(tiny, random_pictures(2), "cat", tiny.perfusion, seed=0)
    config = replace(tiny.perfusion, key_lock="trained")
    keys = ConceptTrainer(tiny, pictures, "cat", config, seed=0, start=start).concept.key_outputs
    expected = start.key_outputs if learned else tiny.projections.keys @ start.superclass_encoding
    assert keys is not None
    assert expected is not None
    assert torch.equal(keys, expected)
    locked = ConceptTrainer(tiny, pictures, "cat", tiny.perfusion, seed=0, start=start)
    assert locked.concept.key_outputs is None


def test_a_seed_decides_the_outcome(tiny: BaseModel, tmp_path: Path) -> None:
    first = Events().train(tiny, tmp_path, seed=1)
    assert_same(first, Events().train(tiny, tmp_path, seed=1))
    other = Events().train(tiny, tmp_path, seed=2)
    assert not torch.equal(first.concept.value_outputs, other.concept.value_outputs)


def test_a_checkpoint_of_another_training_is_refused(tiny: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    trainer(tiny, tiny.perfusion, superclass="dog").checkpoint().save(path)
    with pytest.raises(CheckpointMismatch):
        trainer(tiny, tiny.perfusion).restore(Checkpoint.load(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointMismatch):
        Checkpoint.load(path)


def test_a_training_whose_checkpoint_does_not_fit_starts_over(tiny: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    trainer(tiny, tiny.perfusion, superclass="dog").checkpoint().save(path)
    events = Events()
    assert_same(events.train(tiny, tmp_path, resume_from=path), Events().train(tiny, tmp_path))
    assert events.progress[0][0] == 1


def test_no_checkpoint_is_ever_half_written(tiny: BaseModel, tmp_path: Path) -> None:
    Events().train(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002.safetensors"]


def test_divergence_is_told_and_not_trained_on(tiny: BaseModel) -> None:
    training = trainer(tiny, tiny.perfusion)
    training.concept.value_outputs.data[0] = torch.nan
    embedding = training.concept.embedding.detach().clone()
    with pytest.raises(TrainingDiverged, match="step 1"):
        step(training)
    assert torch.equal(training.concept.embedding, embedding)


def test_trained_keys_are_learned_and_locked_ones_are_not_stored(tiny: BaseModel, tmp_path: Path) -> None:
    config = replace(tiny.perfusion, key_lock="trained")
    training = trainer(tiny, config)
    assert training.concept.key_outputs is not None
    start = training.concept.key_outputs.detach().clone()
    assert torch.equal(start, tiny.projections.keys @ training.concept.superclass_encoding)
    step(training)
    assert not torch.equal(training.concept.key_outputs, start)
    file = Events().train(tiny, tmp_path, config=config)
    assert (file.key_lock, "key_outputs" in file.concept.tensors()) == (KeyLock.TRAINED, True)
    assert Events().train(tiny, tmp_path).concept.key_outputs is None


def test_the_key_lock_decides_what_the_values_are_learned_beside(tiny: BaseModel, tmp_path: Path) -> None:
    config = replace(tiny.perfusion, steps=2)
    learned = [
        Events().train(tiny, tmp_path, config=replace(config, key_lock=lock)).concept.value_outputs
        for lock in ("local", "global", "trained")
    ]
    assert len({tuple(outputs.tolist()) for outputs in learned}) == 3


def test_a_training_with_learned_keys_resumes_bit_for_bit(tiny: BaseModel, tmp_path: Path) -> None:
    config = replace(tiny.perfusion, steps=4, checkpoint_every=2, key_lock="trained")
    whole = Events()
    expected = whole.train(tiny, tmp_path, config=config)
    assert_same(Events().train(tiny, tmp_path, config=config, resume_from=whole.checkpoints[0][1]), expected)


def test_the_result_names_what_it_was_learned_on(tiny: BaseModel, tmp_path: Path) -> None:
    file = Events().train(tiny, tmp_path, superclass="teddy bear")
    file.save(tmp_path / "concept.safetensors")
    adopted = tiny.adopt(ConceptFile.load(tmp_path / "concept.safetensors"))
    assert adopted.superclass == "teddy bear"
    assert file.steps == 4
    assert file.settings["value_lr"] == tiny.perfusion.value_lr


@pytest.mark.parametrize("count", [0, 33])
def test_the_number_of_pictures_is_bounded(tiny: BaseModel, tmp_path: Path, count: int) -> None:
    with pytest.raises(PicturesInvalid, match="from 1 to 32"):
        Events().train(tiny, tmp_path, pictures=random_pictures(count))


def test_bad_superclasses_and_bare_models_are_refused_before_any_step(tiny: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(SuperclassInvalid):
        Events().train(tiny, tmp_path, superclass="")
    with pytest.raises(CovarianceMissing):
        Events().train(replace(tiny, covariance=None), tmp_path)


def test_given_masks_replace_the_models_own_and_are_mirrored_with_the_pictures(tiny: BaseModel) -> None:
    masks = torch.rand(2, 1, 8, 8)
    pictures = prepare_pictures(tiny, random_pictures(2), "cat", tiny.perfusion, seed=0, masks=masks)
    assert torch.equal(pictures.masks, torch.cat([masks, masks.flip(-1)]))
    with pytest.raises(PicturesInvalid, match="masks"):
        prepare_pictures(tiny, random_pictures(2), "cat", tiny.perfusion, seed=0, masks=masks[:1])


def test_error_outside_the_mask_costs_nothing_and_the_things_size_does_not_matter() -> None:
    target, mask = torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    mask[0, :, :1], mask[1] = 1, 0.5
    output = torch.full_like(target, 3.0)
    assert float(masked_squared_error(output, target, mask)) == pytest.approx(9.0)
    output[0, :, 1:] = 100.0
    assert float(masked_squared_error(output, target, mask)) == pytest.approx(9.0)
