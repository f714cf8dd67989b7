"""Waiting for the end of a job, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from core.errors import NotFound
from core.jobs.models import Job
from core.jobs.reading import wait_for_end

LONGEST = 0.05  # seconds; two rests are shorter


class Looks:
    """Each look finds the job in the next of these states; sleeping moves the clock."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.slept: list[float] = []
        self.open = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self.open += 1
        yield self
        self.open -= 1

    async def scalar(self, _: object) -> Job | None:
        return Job(id="job_1", kind="generation", state=self.states.pop(0)) if self.states else None

    def now(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        assert self.open == 0  # nobody holds a transaction while he waits
        self.slept.append(seconds)

    async def wait(self, seconds: float) -> Job:
        return await wait_for_end(
            self.transaction,
            "job_1",
            at_most=timedelta(seconds=seconds),
            longest_rest=timedelta(seconds=LONGEST),
            now=self.now,
            sleep=self.sleep,
        )


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled", "expired"])
async def test_the_end_is_seen_at_the_next_look(end):
    looks = Looks("queued", "running", end)
    assert (await looks.wait(60)).state == end
    assert looks.slept == [0.025, 0.0375]


async def test_the_time_is_never_exceeded():
    looks = Looks(*["queued"] * 9)
    assert (await looks.wait(0.15)).state == "queued"
    assert looks.slept == pytest.approx([0.025, 0.0375, LONGEST, 0.0375])


async def test_no_time_is_one_look():
    looks = Looks("queued")
    assert (await looks.wait(0)).state == "queued"


async def test_a_job_that_is_gone_is_not_waited_for():
    with pytest.raises(NotFound):
        await Looks().wait(60)
