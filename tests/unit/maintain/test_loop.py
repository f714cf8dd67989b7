from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from workers.maintain import loop
from workers.maintain.loop import Loop, persist, repeat


@dataclass(frozen=True)
class Counts:
    done: int = 0


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(loop, "_FIRST_DELAY", 0.0)


def failing(times: int):
    """An action that fails so often before it succeeds."""
    left = iter([True] * times + [False])

    async def action() -> str:
        if next(left):
            raise ConnectionError("away")
        return "here"

    return action


async def test_an_action_is_tried_until_it_succeeds():
    assert await persist("ringer", failing(20)) == "here"


async def test_a_series_of_failures_is_told_once_and_so_is_its_end():
    with capture_logs() as logs:
        await persist("ringer", failing(20))
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("ringer.failing", "warning"),
        ("ringer.recovered", "info"),
    ]


async def test_a_loop_passes_until_cancelled_and_tells_what_it_did():
    made: list[int] = []
    enough = asyncio.Event()

    async def run_once() -> Counts:
        made.append(len(made))
        return Counts(done=len(made) % 2)

    async def rest(pause: timedelta) -> None:
        if len(made) == 4:
            enough.set()
            await asyncio.Event().wait()

    with capture_logs() as logs:
        task = asyncio.create_task(repeat(Loop("reaper", timedelta(seconds=1), run_once, rest=rest)))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [line["event"] for line in logs] == ["reaper.done", "reaper.done"]
    assert task.cancelled()
