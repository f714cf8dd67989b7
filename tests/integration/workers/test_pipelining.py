"""A batch is claimed while the one before is decoded and stored while the next is drawn; none is lost for another."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from tests.deployment import serving
from tests.integration.workers.scripted import ScriptedChild
from tests.stack import TestServers
from tests.waiting import until
from workers import protocol
from workers.attempt import Attempt
from workers.gpu_child import ChildLost
from workers.handlers import generation


class Store:
    """The S3 server's process, which can be made to answer nothing for a while."""

    def __init__(self, servers: TestServers) -> None:
        self._servers = servers

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self._servers.seaweed.process.pid
        assert pid is not None
        os.killpg(pid, number)


@pytest.fixture
def store(servers: TestServers) -> Iterator[Store]:
    made = Store(servers)
    yield made
    made.thaw()


class Decoder(ScriptedChild):
    """An engine that decodes its first batch until told how that ended, and withholds all pictures."""

    def __init__(self) -> None:
        super().__init__(self._draw)
        self.asked: list[protocol.Generate] = []
        self.end_of_first: Exception | str | None = None
        self._is_first = True

    def receive(self, seconds: float) -> Any:
        if self._is_first and isinstance(self._answers[0], protocol.Generated):
            if self.end_of_first is None:
                return None
            self._is_first = False
            if isinstance(self.end_of_first, Exception):
                raise self.end_of_first
        return super().receive(seconds)

    def _draw(self, asked: protocol.Generate) -> list[Any]:
        self.asked.append(asked)
        steps = asked.items[0].steps
        pictures = tuple(protocol.GeneratedImage(item.item_id, None, 16, 16, item.seed) for item in asked.items)
        last_step = protocol.Progress(asked.request_id, steps, steps)
        # Twice: what memory does not hold when it is to be decoded is drawn once more in halves.
        return [last_step, last_step, protocol.Generated(asked.request_id, pictures, ())]


def drawn_of(deployment, job_id):
    return deployment.one("SELECT * FROM job_attempts WHERE job_id = :id", id=job_id)


async def test_the_next_batch_is_drawn_while_pictures_wait_for_the_store(deployment, worker, store):
    await deployment.generate()
    worker.serve()  # the model is warm now
    first, second = await deployment.generate(steps=2), await deployment.generate(steps=3)
    store.freeze()
    with serving(worker):
        until(lambda: deployment.job(second).state == "running")
        assert deployment.job(first).state == "running"
        await asyncio.sleep(1.0)
        store.thaw()
    assert [deployment.job(job_id).state for job_id in (first, second)] == ["succeeded", "succeeded"]
    assert deployment.job(first).gpu_seconds < 1.0  # waiting for the store costs nobody GPU time
    assert deployment.job(first).finished_at <= deployment.job(second).finished_at


async def test_a_cancel_while_pictures_wait_for_the_store_is_heard(deployment, worker, store):
    job_id, other = await deployment.generate(steps=2), await deployment.generate(steps=3)
    store.freeze()
    with serving(worker):
        until(lambda: deployment.job(other).state == "running")
        await deployment.cancel(job_id)
        await asyncio.sleep(0.5)
        store.thaw()
    assert deployment.job(job_id).state == "canceled"
    assert deployment.job(other).state == "succeeded"


async def test_a_lost_engine_costs_its_own_batch_and_not_the_one_being_stored(deployment, worker, child, store):
    job_id, other = await deployment.generate(steps=2), await deployment.generate(steps=200, n=8)
    store.freeze()
    with serving(worker):
        until(lambda: deployment.job(other).state == "running")
        until(lambda: deployment.job(other).progress is not None)
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: deployment.outcomes(other) == ["failed"])
        assert deployment.job(job_id).state == "running"
        store.thaw()
    assert deployment.job(job_id).state == "succeeded"
    (error,) = deployment.column("SELECT error FROM job_attempts WHERE job_id = :id", id=other)
    assert error["code"] == "engine-lost"


async def test_a_worker_that_leaves_stores_what_was_drawn_first(deployment, child, store):
    child.ensure_running()
    worker = deployment.supervisor(child=child)
    job_id, other = await deployment.generate(steps=2), await deployment.generate(steps=100, n=8)
    store.freeze()
    with serving(worker):
        until(lambda: deployment.job(other).progress is not None)
        worker.drain()
        assert deployment.job(job_id).state == "running"
        store.thaw()
    worker.close()
    assert [deployment.job(each).state for each in (job_id, other)] == ["succeeded", "succeeded"]
    assert deployment.column("SELECT state FROM workers WHERE id = :id", id=worker.worker_id) == ["stopped"]


async def test_the_next_batch_is_claimed_while_one_is_decoded_and_pays_for_its_own_time(deployment):
    child = Decoder()
    first, second, third = [await deployment.generate(steps=steps) for steps in (2, 3, 4)]
    with serving(deployment.supervisor(child=child)):
        until(lambda: deployment.job(second).state == "running")
        assert deployment.job(first).state == "running"
        await asyncio.sleep(1.0)
        assert deployment.job(third).state == "queued"
        child.end_of_first = "decoded"
    assert [deployment.job(job_id).state for job_id in (first, second, third)] == 3 * ["succeeded"]
    assert deployment.job(first).gpu_seconds > 1.0 > deployment.job(second).gpu_seconds


async def test_what_was_claimed_ahead_of_a_lost_engine_is_given_back_and_loses_no_attempt(deployment):
    child = Decoder()
    first, second = await deployment.generate(steps=2), await deployment.generate(steps=3)
    with serving(deployment.supervisor(child=child)):
        until(lambda: deployment.job(second).state == "running")
        child.end_of_first = ChildLost("The engine died.")
    assert deployment.outcomes(first) == ["failed"]
    assert deployment.outcomes(second) == ["returned"]
    assert (deployment.job(second).state, deployment.job(second).attempt) == ("queued", 0)


async def test_what_comes_when_nothing_was_found_to_claim_ahead_is_done_in_the_same_go(deployment):
    child = Decoder()
    first = await deployment.generate()
    with serving(deployment.supervisor(child=child)):
        until(lambda: deployment.job(first).state == "running")
        await asyncio.sleep(0.3)  # it looks for more while it decodes
        second = await deployment.generate()
        child.end_of_first = "decoded"
    assert [deployment.job(job_id).state for job_id in (first, second)] == ["succeeded", "succeeded"]


async def test_what_was_claimed_ahead_is_canceled_while_it_waits(deployment):
    child = Decoder()
    first, second = await deployment.generate(steps=2), await deployment.generate(steps=3)
    with serving(deployment.supervisor(child=child)):
        until(lambda: deployment.job(second).state == "running")
        await deployment.cancel(second)
        until(lambda: deployment.job(second).state == "canceled", seconds=3)
        assert deployment.job(first).state == "running"
        child.end_of_first = "decoded"
    assert deployment.job(first).state == "succeeded"
    assert len(child.asked) == 1


async def test_what_was_claimed_ahead_is_given_back_by_a_worker_that_is_to_leave(deployment):
    child = Decoder()
    first, second = await deployment.generate(steps=2), await deployment.generate(steps=3)
    worker = deployment.supervisor(child=child)
    with serving(worker):
        until(lambda: deployment.job(second).state == "running")
        await asyncio.sleep(1.0)
        worker.drain()
        child.end_of_first = "decoded"
    assert (deployment.job(first).state, deployment.outcomes(second)) == ("succeeded", ["returned"])
    assert deployment.job(second).attempt == 0
    assert deployment.column("SELECT gpu_seconds < 0.5 FROM job_attempts WHERE job_id = :id", id=second) == [True]


async def test_what_cannot_even_be_ended_is_held_by_nobody(deployment, monkeypatch):
    await deployment.generate()
    worker = deployment.supervisor(child=Decoder())
    monkeypatch.setattr(generation, "fetch_policies", Mock(side_effect=RuntimeError("no policies")))
    monkeypatch.setattr(Attempt, "give_up", Mock(side_effect=RuntimeError("no end")))
    with pytest.raises(RuntimeError, match="no end"):
        worker.serve()
    assert "lease-keeper" not in {thread.name for thread in threading.enumerate()}
    assert deployment.column("SELECT state FROM workers WHERE id = :id", id=worker.worker_id) == ["idle"]


async def test_a_worker_that_is_to_leave_claims_nothing_ahead(deployment):
    child = Decoder()
    first, second = await deployment.generate(steps=2), await deployment.generate(steps=3)
    worker = deployment.supervisor(child=child)
    child.script = lambda asked: (worker.drain(), Decoder._draw(child, asked))[1]
    with serving(worker):
        until(lambda: deployment.job(first).state == "running")
        await asyncio.sleep(0.3)
        child.end_of_first = "decoded"
    assert [deployment.job(job_id).state for job_id in (first, second)] == ["succeeded", "queued"]


async def test_an_attempt_says_where_its_time_went(deployment, worker):
    job_id = await deployment.generate()
    worker.serve()
    timings = drawn_of(deployment, job_id).timings
    assert {"fetch", "load", "open", "condition", "sample", "decode", "encode", "store"} == timings.keys()
    assert all(seconds >= 0 for seconds in timings.values())
    attempt = drawn_of(deployment, job_id)
    assert sum(timings.values()) <= (attempt.ended_at - attempt.started_at).total_seconds()


async def test_models_that_the_engine_holds_are_told_by_their_ids(deployment, worker):
    await deployment.generate()
    worker.serve()
    (held,) = deployment.column("SELECT warm_models FROM workers WHERE id = :id", id=worker.worker_id)
    assert held == [deployment.model_id]
