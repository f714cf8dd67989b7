"""Which fault comes when: drawn from a seed, the same for every system that is put to it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to the system."""

    KILL_WORKER = "kill -9 a worker"
    KILL_CHILD = "kill -9 a GPU child"
    KILL_API = "kill -9 the API"
    KILL_MAINTAIN = "kill -9 maintain"
    KILL_POSTGRES = "kill -9 Postgres"
    KILL_BROKER = "kill -9 the broker"
    KILL_STORE = "kill -9 the S3 server"
    EMPTY_BROKER = "empty the broker"
    STOP_WORKER = "stop a worker beyond its lease"
    STOP_MAINTAIN = "stop maintain"
    STOP_BROKER = "stop the broker"
    STOP_POSTGRES = "stop Postgres"
    HOLE_POSTGRES = "black-hole connections to Postgres"
    HOLE_BROKER = "black-hole connections to the broker"
    HOLE_STORE = "black-hole connections to S3"
    CUT_COMMITS = "lose the answers of commits"
    END_BACKENDS = "terminate backends in mid-commit"
    FILL_POSTGRES = "fill the disk of Postgres"
    FILL_STORE = "fill the disk of S3"
    SHIFT_CLOCK = "shift a worker's clock"


# Kinds that last, and how long, in seconds. What stops a worker outlives its lease.
LASTING: dict[Kind, tuple[float, float]] = {
    Kind.STOP_WORKER: (14, 20),
    Kind.STOP_MAINTAIN: (4, 14),
    Kind.STOP_BROKER: (4, 14),
    Kind.STOP_POSTGRES: (3, 8),
    Kind.HOLE_POSTGRES: (6, 20),
    Kind.HOLE_BROKER: (6, 20),
    Kind.HOLE_STORE: (6, 20),
    Kind.CUT_COMMITS: (1, 2),
    Kind.FILL_POSTGRES: (4, 8),
    Kind.FILL_STORE: (6, 12),
    Kind.SHIFT_CLOCK: (10, 20),
}


@dataclass(frozen=True)
class Fault:
    """One fault: when it begins, how long it lasts, and what it draws its victim from (a number in [0, 1))."""

    at: float
    kind: Kind
    seconds: float
    draw: float

    def choose(self, count: int) -> int:
        """One of so many victims."""
        return int(self.draw * count)


def plan(seed: int, *, seconds: float, every: float, kinds: Sequence[Kind] = tuple(Kind)) -> list[Fault]:
    """Faults for so long, one in each ``every`` seconds, at a random moment of it; every kind equally often, to one."""
    rng = random.Random(seed)
    shuffled = _rounds(rng, kinds)
    return [_fault(rng, next(shuffled), every * (slot + rng.random())) for slot in range(int(seconds / every))]


def _rounds(rng: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Every kind once, in a random order, again and again."""
    while True:
        yield from rng.sample(kinds, len(kinds))


def _fault(rng: random.Random, kind: Kind, at: float) -> Fault:
    return Fault(at, kind, rng.uniform(*LASTING.get(kind, (0, 0))), rng.random())
