"""The judges: what they learn from, that learning goes on where it stopped, and that files give the same judge back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from workers.engine.storybook.identity import ACCESSORIES, is_unseen
from workers.engine.storybook.judge_pictures import (
    LOOKALIKES,
    NOT_SHOWN,
    RENDERS,
    JudgeShards,
    judged_compositions,
    load_arrays,
    lookalikes,
    render_judge_shards,
    sightings,
    targets,
)
from workers.engine.storybook.judge_training import (
    EMBEDDING,
    JudgeSettings,
    attribute_loss,
    train_attribute_judge,
    train_identity_judge,
)
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, PictureNet, Pictures, to_tensor
from workers.engine.storybook.networks import make_autoencoder
from workers.engine.storybook.roughening import Roughener
from workers.engine.storybook.sampling import ATTRIBUTES, labels

WANTED = JudgeShards(attributes=2, identity=1, pictures=24, groups=2)
TOY = JudgeSettings(minutes=1e-6, batch=8, groups=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "shards"
    assert render_judge_shards(folder, WANTED, workers=1) == 3
    return folder


def noise(count: int) -> Pictures:
    return np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3)).astype(np.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_only_shards_that_are_missing_are_rendered(shards: Path):
    assert render_judge_shards(shards, WANTED, workers=1) == 0
    assert [len(pixels) for pixels in load_arrays(shards, "attributes", "pixels")] == [24, 24]
    assert load_arrays(shards, "identity", "pixels")[0].shape == (2, LOOKALIKES, RENDERS, 64, 64, 3)


def test_no_two_shards_hold_the_same_pictures(shards: Path):
    first, second = load_arrays(shards, "attributes", "pixels")
    assert not any(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_pictures_that_were_never_rendered_are_missed(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="attributes"):
        load_arrays(tmp_path, "attributes", "pixels")


def test_a_target_is_the_label_or_says_that_nothing_is_shown():
    for composition in judged_compositions("judge", 40):
        said = labels(composition)
        for (name, values), target in zip(ATTRIBUTES.items(), targets(composition), strict=True):
            assert target == (values.index(said[name]) if name in said else NOT_SHOWN)


def test_judges_see_every_value_and_also_what_training_keeps_apart():
    compositions = judged_compositions("judge", 1200)
    shown = Counter((name, value) for composition in compositions for name, value in labels(composition).items())
    assert min(shown[name, value] for name, values in ATTRIBUTES.items() for value in values) >= 10
    firsts = [composition.instances[0].identity for composition in compositions]
    assert any(is_unseen(first.cls, first.colour) for first in firsts)


def test_lookalikes_share_all_that_words_say_and_accessories_are_among_them():
    groups = [lookalikes("judge", index, 3) for index in range(60)]
    for group in groups:
        assert len({(one.cls, one.colour, one.pattern) for one in group}) == 1
        assert len({one.shape for one in group}) == 3
    assert {group[0].cls for group in groups} >= set(ACCESSORIES)


def test_an_accessory_is_seen_by_itself():
    accessory = next(group[0] for k in range(60) if (group := lookalikes("judge", k, 1))[0].cls in ACCESSORIES)
    assert sightings("judge", 0, accessory, 2).shape == (2, 64, 64, 3)


def test_the_loss_leaves_out_what_a_picture_cannot_show():
    block = torch.tensor([[4.0, 0.0], [0.0, 4.0]], requires_grad=True)
    loss = attribute_loss({"night": block}, torch.tensor([[0], [NOT_SHOWN]]))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-4.0)), rel=1e-4)
    torch.autograd.backward(loss)
    assert block.grad is not None
    assert not block.grad[1].any()


def test_a_batch_that_shows_an_attribute_nowhere_costs_nothing():
    assert attribute_loss({"night": torch.randn(2, 2)}, torch.tensor([[NOT_SHOWN], [NOT_SHOWN]])).item() == 0


def test_half_of_the_pictures_stay_exact():
    pictures = to_tensor(noise(16))
    rough = Roughener(make_autoencoder(8))(pictures, generator())
    same = (rough == pictures).flatten(1).all(1)
    assert same.sum() == 8
    assert rough.abs().max() <= 1


def test_the_same_pictures_are_roughened_alike_by_the_same_generator():
    pictures, roughener = to_tensor(noise(8)), Roughener(make_autoencoder(8))
    assert torch.equal(roughener(pictures, generator(1)), roughener(pictures, generator(1)))
    assert not torch.equal(roughener(pictures, generator(1)), roughener(pictures, generator(2)))


def test_a_glance_depends_on_where_a_thing_is():
    net = PictureNet(4).eval()
    torch.nn.init.normal_(net.places, std=3, generator=generator())
    left = torch.zeros(1, 3, 64, 64)
    left[..., 16:48, 0:32] = 1
    assert (net(left) - net(left.flip(3))).abs().max() > 1e-3


def test_a_judge_has_at_most_600_000_parameters():
    for outputs in (EMBEDDING, sum(map(len, ATTRIBUTES.values()))):
        assert sum(parameter.numel() for parameter in PictureNet(outputs).parameters()) <= 600_000


def test_a_run_whose_time_is_spent_gives_what_it_had_and_one_with_more_goes_on(shards: Path, tmp_path: Path):
    checkpoint = tmp_path / "work" / "attributes.pt"

    def trained(minutes: float) -> AttributeJudge:
        settings = JudgeSettings(minutes=minutes, batch=8)
        return train_attribute_judge(make_autoencoder(8), shards, settings, checkpoint=checkpoint)

    first, again, longer = trained(1e-6), trained(1e-6), trained(0.01)
    weights = [judge.net.head.weight for judge in (first, again, longer)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert torch.load(checkpoint, weights_only=True)["steps"] > 1


def test_judges_come_back_from_their_files(shards: Path, tmp_path: Path):
    autoencoder = make_autoencoder(8)
    attributes = train_attribute_judge(autoencoder, shards, TOY, checkpoint=tmp_path / "attributes.pt")
    identity = train_identity_judge(autoencoder, shards, TOY, checkpoint=tmp_path / "identity.pt")
    attributes.save(tmp_path)
    identity.save(tmp_path)
    embedded = IdentityJudge.load(tmp_path).embed(noise(3))
    assert embedded.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    torch.testing.assert_close(embedded, identity.embed(noise(3)), atol=0.02, rtol=0)
    assert AttributeJudge.load(tmp_path).read(noise(3))[0].keys() == ATTRIBUTES.keys()


def test_a_picture_is_attributed_to_the_candidate_it_is_nearest_to():
    judge = IdentityJudge(PictureNet(EMBEDDING))
    pictures = noise(4)
    assert judge.pick(pictures, [[picture] for picture in pictures]) == [0, 1, 2, 3]
