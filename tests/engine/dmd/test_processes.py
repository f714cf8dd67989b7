"""Processes that share a batch: two of them, as threads here, take the steps that one does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.dmd.test_trainer import EVERYTHING, SMALL, ring_trainer, unet_trainer, values
from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.processes import ALONE, Share, anyone, average
from workers.engine.dmd.trainer import DistillationTrainer
from workers.engine.errors import SettingsInvalid, TrainingDiverged

SEVERAL_STEPS = replace(SMALL, student_timesteps=(999, 499), critic_warmup=1, gan_weight=0.01)


class Table:
    """Where the threads of a group lay down their tensors for each other to see."""

    def __init__(self, count: int) -> None:
        self.tensors: list[Tensor] = [torch.empty(0)] * count
        self.barrier = threading.Barrier(count, timeout=60)


@dataclass(frozen=True)
class Thread:
    """One thread of a group: the same arithmetic as processes, without their start."""

    rank: int
    count: int
    table: Table

    def mean(self, tensor: Tensor, /) -> Tensor:
        self.table.tensors[self.rank] = tensor
        self.table.barrier.wait()
        total = torch.stack(self.table.tensors).sum(0)
        self.table.barrier.wait()
        return total / self.count


def threads(count: int) -> list[Thread]:
    table = Table(count)
    return [Thread(rank, count, table) for rank in range(count)]


def together(*calls: Callable[[], object]) -> list[object]:
    """Call in as many threads; return what came of each."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def steps(trainer: DistillationTrainer[Any], count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            trainer.step()

    return run


def assert_close(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, within: float = 1e-4) -> None:
    """Compare parameters, their moments and the rest, each as one long vector.

    Adam divides a gradient by its own size, so that a single element whose gradient is all but nothing goes either way.
    """
    assert state.keys() == expected.keys()
    kinds = dict.fromkeys(name.rpartition("/")[0] for name in expected)
    assert {"average", "critic/value", "student/value", "student/exp_avg", "student/exp_avg_sq"} <= kinds.keys()
    for kind in kinds:
        names = [name for name in expected if name.rpartition("/")[0] == kind]
        assert distance(state, expected, names) < within, kind


def distance(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Iterable[str]) -> float:
    """How far some tensors, put together, are from what is expected, relative to that."""
    ours, theirs = (torch.cat([of[name].detach().double().flatten() for name in names]) for of in (tensors, expected))
    return float((ours - theirs).norm() / theirs.norm())


def test_shares_put_side_by_side_are_the_whole_of_every_batch() -> None:
    drawn = torch.arange(12)  # two batches of six
    shares = [Share(6, thread) for thread in threads(3)]
    assert [share.of(drawn).tolist() for share in shares] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert [share.size for share in shares] == [2, 2, 2]
    assert shares[0].whole(4) == 12
    assert Share(6, ALONE).of(drawn) is drawn


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="batch_size 8 must be divisible by the 3 processes"):
        Share(8, threads(3)[0])


def test_tensors_of_any_shape_are_averaged_in_one_exchange() -> None:
    first, second = threads(2)
    mine = [torch.tensor(1.0), torch.arange(6.0).view(2, 3)]
    theirs = [torch.tensor(3.0), torch.zeros(2, 3)]
    for averaged in together(lambda: average(first, mine), lambda: average(second, theirs)):
        assert isinstance(averaged, list)
        assert averaged[0] == 2.0
        assert torch.equal(averaged[1], mine[1] / 2)


def test_what_one_says_all_hear() -> None:
    first, second = threads(2)
    for said in ((True, False), (False, True), (False, False)):
        heard = together(lambda: anyone(first, says_so=said[0]), lambda: anyone(second, says_so=said[1]))  # noqa: B023
        assert heard == [any(said)] * 2


@pytest.mark.parametrize("config", [EVERYTHING, SEVERAL_STEPS])
def test_two_processes_take_the_steps_of_one_and_stay_alike_to_the_bit(config: DistillationConfig) -> None:
    alone = ring_trainer(config)
    steps(alone, 4)()
    first, second = (ring_trainer(config, processes=thread) for thread in threads(2))
    together(steps(first, 4), steps(second, 4))
    assert_close(first.state(), alone.state())
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())
    report = first.signals.report()
    assert report == second.signals.report()
    assert report == pytest.approx(alone.signals.report(), rel=1e-3)


def test_two_processes_take_the_steps_of_one_with_a_unet(tiny: BaseModel) -> None:
    config = replace(EVERYTHING, batch_size=2, guidance=3.0, key_locked=True, critic_ratio=1)
    alone = unet_trainer(tiny, config)
    first, second = (unet_trainer(tiny, config, processes=thread) for thread in threads(2))
    steps(alone, 3)()
    together(steps(first, 3), steps(second, 3))
    assert_close(first.state(), alone.state())


def test_a_state_of_two_processes_goes_on_in_one_and_the_other_way() -> None:
    whole = ring_trainer(EVERYTHING)
    steps(whole, 2)()
    early = {name: tensor.detach().clone() for name, tensor in whole.state().items()}
    steps(whole, 4)()
    pair = [ring_trainer(EVERYTHING, seed=1, processes=thread) for thread in threads(2)]
    for trainer in pair:
        trainer.restore(early, 2)
    together(*(steps(trainer, 2) for trainer in pair))
    last = ring_trainer(EVERYTHING, seed=2)
    last.restore(pair[0].state(), 4)
    steps(last, 2)()
    assert_close(last.state(), whole.state())


def test_what_diverges_in_one_process_diverges_in_all_and_is_not_learned_from() -> None:
    pair = [ring_trainer(EVERYTHING, processes=thread) for thread in threads(2)]
    pairs = pair[1].material.pairs
    assert pairs is not None
    pairs.latents.fill_(torch.nan)
    before = values(pair[0].student)

    def told(trainer: DistillationTrainer[Any]) -> bool:
        with pytest.raises(TrainingDiverged, match="nan"):
            trainer.step()
        return True

    assert together(*(lambda trainer=trainer: told(trainer) for trainer in pair)) == [True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(pair[0].student).items())
