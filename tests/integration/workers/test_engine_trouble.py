"""What the supervisor makes of an engine that hangs, mixes things up or breaks: told by a scripted pipe."""

from __future__ import annotations

import os
import signal

import psutil

from tests.deployment import serving
from tests.integration.workers.scripted import IMPATIENT, ScriptedChild
from tests.waiting import until
from workers import protocol
from workers.attempt import Patience
from workers.gpu_child import GpuChild


def run(deployment, script):
    child = ScriptedChild(script)
    deployment.supervisor(child=child, patience=IMPATIENT).serve()
    return child


def state_of(deployment):
    return deployment.column("SELECT state FROM workers")


async def test_an_answer_to_another_request_is_never_taken_for_this_ones(deployment):
    job_id = await deployment.generate()
    child = run(deployment, lambda _: [protocol.Generated("job_other:1", (), ())])
    job = deployment.job(job_id)
    assert (job.state, job.result) == ("queued", None)
    assert child.killed
    assert deployment.column("SELECT error ->> 'code' FROM job_attempts") == ["engine-lost"]


async def test_a_picture_that_is_missing_is_not_a_success(deployment):
    job_id = await deployment.generate()
    run(deployment, lambda asked: [protocol.Generated(asked.request_id, (), ())])
    assert deployment.job(job_id).state == "queued"
    assert deployment.column("SELECT error ->> 'code' FROM job_attempts") == ["internal-error"]


async def test_a_silent_engine_is_killed_and_the_job_goes_back(deployment):
    job_id = await deployment.generate()
    child = run(deployment, lambda _: [])
    assert deployment.job(job_id).state == "queued"
    assert child.killed


async def test_an_unexpected_error_leaves_the_worker_listening(deployment):
    job_id = await deployment.generate()
    run(deployment, lambda _: [ZeroDivisionError()])
    assert deployment.job(job_id).state == "queued"
    assert state_of(deployment) == ["idle"]
    assert deployment.column("SELECT error ->> 'code' FROM job_attempts") == ["internal-error"]


async def test_what_failed_together_is_tried_apart(deployment):
    ids = [await deployment.generate() for _ in range(3)]
    batches: list[set[str]] = []

    def fail_all(asked):
        batches.append({item.item_id.partition("/")[0] for item in asked.items})
        return [protocol.Failed(asked.request_id, "out-of-memory", "full", retryable=True)]

    run(deployment, fail_all)
    deployment.bring_back()
    run(deployment, fail_all)
    assert batches == [set(ids), *({job_id} for job_id in ids)]


async def test_parameters_of_another_release_are_left_to_it_and_block_nobody(deployment):
    strange = await deployment.generate()
    deployment.column("UPDATE jobs SET params = params || '{\"hue\": 1}' WHERE id = :id RETURNING id", id=strange)
    plain = await deployment.generate(width=24)
    run(deployment, lambda request: [protocol.Failed(request.request_id, "x", "y", retryable=False)])
    assert deployment.job(plain).state == "failed"
    assert deployment.job(strange).state == "queued"
    assert deployment.outcomes(strange) == ["failed"]


async def test_a_hung_engine_does_not_keep_a_canceled_job(deployment):
    child = GpuChild(device="cpu")
    worker = deployment.supervisor(child=child, patience=Patience(stopping=0.5))
    child.ensure_running()
    job_id = await deployment.train(steps=5000)
    with serving(worker):
        until(lambda: (deployment.job(job_id).progress or {}).get("step", 0) > 0)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        await deployment.cancel(job_id)
        until(lambda: deployment.job(job_id).state == "canceled")
    worker.close()


def test_the_engine_leaves_when_it_is_told_to_and_not_by_a_signal_to_its_group():
    child = GpuChild(device="cpu")
    child.ensure_running()
    assert child.pid is not None
    engine = psutil.Process(child.pid)
    os.kill(engine.pid, signal.SIGTERM)
    os.kill(engine.pid, signal.SIGINT)
    child.send(protocol.Stop("nothing"))  # it still listens
    assert engine.is_running()
    child.close()
    assert not engine.is_running()


def test_a_killed_engine_is_gone_at_once_and_its_last_words_with_it():
    child = GpuChild(device="cpu")
    child.ensure_running()
    first = child.pid
    child.kill()
    assert child.pid is None
    child.ensure_running()
    assert child.pid not in (None, first)
    assert child.receive(0.1) is None
    child.close()
