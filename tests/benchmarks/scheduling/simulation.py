"""A day of traffic on many GPUs, with the selection that claims run and a clock that jumps from event to event."""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

from core.jobs.params import is_training_lane
from core.scheduling.fairshare import Batch, Priority, Waiting, select_batch, sort_key
from tests.benchmarks.scheduling.memory_queue import MemoryQueue

DAY: Final = 86_400.0
_KINDS: Final = (("generation", 1), ("generation", 50), ("training", 400))


@dataclass(frozen=True)
class World:
    """What a deployment is and what is asked of it; seconds are a GPU's."""

    gpus: int
    tenants: int
    jobs: int
    models: int = 20
    pools: int = 1  # tenants and GPUs are dealt out among them
    pools_by_model: bool = False  # or models are, by how much they are asked for
    room: int = 8
    cohort: int = 4
    warm: int = 2  # models that a GPU holds
    load_seconds: float = 20.0
    mix: tuple[float, float, float] = (0.55, 0.3, 0.15)  # one step, fifty steps, trainings
    one_step_seconds: float = 0.05  # a batch, then a picture
    picture_seconds: tuple[float, float] = (0.02, 0.6)
    training_seconds: float = 240.0
    seed: int = 1
    length: float = DAY


@dataclass
class Outcome:
    """What came of it; waits in seconds by priority."""

    waits: dict[Priority, list[float]] = field(default_factory=lambda: defaultdict(list))
    busy_seconds: float = 0.0
    loading_seconds: float = 0.0
    loads: int = 0
    claims: int = 0
    most_claims: int = 0  # in any minute of one pool
    jobs: int = 0
    ended_at: float = 0.0

    def wait(self, share: float, priority: Priority | None = None) -> float:
        """The wait that so large a share of the jobs, of a priority, did not exceed."""
        waits = sorted(w for p, some in self.waits.items() if priority in (None, p) for w in some)
        return waits[min(len(waits) - 1, int(share * len(waits)))] if waits else 0.0


@dataclass
class _Gpu:
    """One GPU and the models it holds, the one used last at the end."""

    pool: int
    held: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def load(self, model: str, most: int) -> bool:
        """Hold a model; whether it had to be loaded."""
        was_cold = model not in self.held
        self.held[model] = None
        self.held.move_to_end(model)
        if len(self.held) > most:
            self.held.popitem(last=False)
        return was_cold


@dataclass(order=True)
class _End:
    at: float
    number: int
    gpu: _Gpu = field(compare=False)
    batch: Batch = field(compare=False)
    seconds: float = field(compare=False)  # of work


class Simulation:
    """One world, run once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcome = Outcome()
        self._chance = random.Random(world.seed)
        self._queues = [MemoryQueue() for _ in range(world.pools)]
        self._idle: list[list[_Gpu]] = [[] for _ in range(world.pools)]
        self._model_pool = _dealt(world)
        shares = _pool_shares(world, self._model_pool)
        for number in range(world.gpus):
            pool = bisect(shares, (number + 0.5) / world.gpus)
            self._idle[pool].append(_Gpu(pool))
        for tenant in range(world.tenants):
            for queue in self._queues:
                queue.join(f"t{tenant:05d}")
        self._ends: list[_End] = []
        self._came: dict[str, tuple[float, Priority]] = {}  # by job
        self._minute: defaultdict[tuple[int, int], int] = defaultdict(int)

    def run(self) -> Outcome:
        """Serve all that comes."""
        for at, pool, priority, job in self._arrivals():
            self._end_until(at)
            self._queues[pool].now = at
            self._queues[pool].put(job)
            self._came[job.job_id] = at, priority
            self._serve(pool, at)
        self._end_until(math.inf)
        self.outcome.most_claims = max(self._minute.values(), default=0)
        return self.outcome

    def _end_until(self, until: float) -> None:
        while self._ends and self._ends[0].at <= until:
            end = heapq.heappop(self._ends)
            for job in end.batch.jobs:
                self._queues[end.gpu.pool].settle(job, 1000 * end.seconds / len(end.batch.jobs))
            self._idle[end.gpu.pool].append(end.gpu)
            self.outcome.ended_at = end.at
            self._serve(end.gpu.pool, end.at)

    def _serve(self, pool: int, now: float) -> None:
        queue, idle, world = self._queues[pool], self._idle[pool], self.world
        queue.now = now
        while idle and len(queue):
            gpu = idle.pop(self._chance.randrange(len(idle)))
            batch = select_batch(queue, warm=frozenset(gpu.held), most=self._most)
            if batch is None:  # all that waits is at its cap
                idle.append(gpu)
                return
            queue.take(batch)
            leader = batch.jobs[0]
            loading = world.load_seconds if gpu.load(leader.model_id, world.warm) else 0.0
            seconds = self._seconds(leader.lane, len(batch.jobs))
            for job in batch.jobs:
                came_at, priority = self._came.pop(job.job_id)
                self.outcome.waits[priority].append(now - came_at)
            self.outcome.claims += 1
            self._minute[pool, int(now // 60)] += 1
            self.outcome.loads += loading > 0
            self.outcome.loading_seconds += loading
            self.outcome.busy_seconds += seconds
            self.outcome.jobs += len(batch.jobs)
            heapq.heappush(self._ends, _End(now + loading + seconds, self.outcome.claims, gpu, batch, seconds))

    def _most(self, lane: str) -> int:
        return self.world.cohort if is_training_lane(lane) else self.world.room

    def _seconds(self, lane: str, jobs: int) -> float:
        if is_training_lane(lane):
            return self.world.training_seconds * (1 + 0.6 * (jobs - 1))  # side by side, not for nothing
        one, fifty = self.world.picture_seconds
        return self.world.one_step_seconds + jobs * (one if lane.endswith(":1") else fifty)

    def _arrivals(self) -> Iterator[tuple[float, int, Priority, Waiting]]:
        """Jobs in the order of their coming: a day that is busiest at noon, and tenants of very different sizes."""
        world, chance = self.world, self._chance
        tenants = list(accumulate(1 / (rank + 10) for rank in range(world.tenants)))
        models = list(accumulate(1 / (rank + 1) for rank in range(world.models)))
        kinds = list(accumulate(world.mix))
        times = sorted(_noonish(chance) * world.length for _ in range(world.jobs))
        for number, at in enumerate(times):
            tenant = bisect(tenants, chance.random() * tenants[-1])
            model = bisect(models, chance.random() * models[-1])
            kind, steps = _KINDS[bisect(kinds, chance.random() * kinds[-1])]
            priority = chance.choices(list(Priority), (0.2, 0.7, 0.1))[0]
            lane = f"training:m{model}" if kind == "training" else f"generation:m{model}:512x512:{steps}"
            cost = self._seconds(lane, 1) * chance.uniform(0.7, 1.4)
            pool = self._model_pool[model] if world.pools_by_model else tenant % world.pools
            yield (
                at,
                pool,
                priority,
                Waiting(
                    job_id=f"{number:08d}",
                    tenant_id=f"t{tenant:05d}",
                    lane=lane,
                    model_id=f"m{model}",
                    cost_ms=int(1000 * cost),
                    sort_key=sort_key(datetime.fromtimestamp(at, UTC), priority),
                    waited=timedelta(0),
                ),
            )


def _noonish(chance: random.Random) -> float:
    """A time of the day from 0 to 1, three times as likely at noon as at midnight."""
    while True:
        at = chance.random()
        if chance.random() < (2 - math.cos(2 * math.pi * at)) / 3:
            return at


def _dealt(world: World) -> list[int]:
    """Which pool each model belongs to, where pools go by models: the most wanted first, to the least loaded."""
    loads, dealt = [0.0] * world.pools, []
    for rank in range(world.models):
        pool = loads.index(min(loads))
        loads[pool] += 1 / (rank + 1)
        dealt.append(pool)
    return dealt


def _pool_shares(world: World, model_pool: list[int]) -> list[float]:
    """The running sum of the pools' shares of the GPUs."""
    if not world.pools_by_model:
        return [(pool + 1) / world.pools for pool in range(world.pools - 1)]
    loads = [0.0] * world.pools
    for rank, pool in enumerate(model_pool):
        loads[pool] += 1 / (rank + 1)
    sums = list(accumulate(loads))
    return [value / sums[-1] for value in sums[:-1]]
