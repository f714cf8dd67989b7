"""What ends or makes way in the middle of the work, told by a scripted engine and by a real one."""

from __future__ import annotations

from sqlalchemy import text

from tests.deployment import serving
from tests.integration.workers.scripted import ScriptedChild
from tests.waiting import until
from workers import protocol
from workers.attempt import Patience
from workers.gpu_child import ChildLost

PATIENT = Patience(working=20, loading=20, stopping=0.5, giving_way=20)


def note(deployment, job_id, what):
    with deployment.sessions.begin() as session:
        session.execute(text(f"UPDATE jobs SET {what} WHERE id = :id"), {"id": job_id})


def load_for_ever(asked):
    return [protocol.Loading(asked.request_id, asked.model)] if isinstance(asked, protocol.Train) else []


def running(deployment, job_id):
    until(lambda: deployment.job(job_id).state == "running")


class NeverUp(ScriptedChild):
    """An engine that ends before it is ready."""

    def ensure_running(self) -> None:
        raise ChildLost("The engine did not come up.")


async def test_one_generation_of_a_batch_is_canceled_at_once_and_the_others_are_drawn(deployment, worker):
    leaver, stayer = await deployment.generate(steps=120, n=2), await deployment.generate(steps=120)
    with serving(worker):
        until(lambda: (deployment.job(stayer).progress or {}).get("step", 0) > 0)
        await deployment.cancel(leaver)
        until(lambda: deployment.job(leaver).state == "canceled")
        assert deployment.job(stayer).state == "running"
    assert deployment.job(stayer).state == "succeeded"
    assert deployment.column("SELECT count(*) FROM files WHERE job_id = :id", id=leaver) == [0]


async def test_a_job_is_canceled_while_its_model_loads_and_the_engine_is_killed_for_it(deployment):
    child = ScriptedChild(load_for_ever)
    worker = deployment.supervisor(child=child, patience=PATIENT)
    job_id = await deployment.train()
    with serving(worker):
        running(deployment, job_id)
        await deployment.cancel(job_id)
        until(lambda: deployment.job(job_id).state == "canceled", seconds=3)
        until(lambda: child.killed, seconds=3)
    assert deployment.outcomes(job_id) == ["canceled"]


async def test_a_job_whose_model_still_loads_makes_way_by_its_engines_end_and_loses_no_attempt(deployment):
    child = ScriptedChild(load_for_ever)
    worker = deployment.supervisor(child=child, patience=PATIENT)
    job_id = await deployment.train()
    with serving(worker):
        running(deployment, job_id)
        note(deployment, job_id, "yield_requested_at = lockstep_now()")
        until(lambda: deployment.job(job_id).state == "queued")
        worker.drain()
    job = deployment.job(job_id)
    assert (job.attempt, job.yields) == (0, 1)
    assert child.killed == 1


async def test_a_training_makes_way_at_the_end_of_its_step_and_goes_on_where_it_was(deployment, worker):
    job_id = await deployment.train(steps=60)
    with serving(worker):
        until(lambda: (deployment.job(job_id).progress or {}).get("step", 0) > 0)
        note(deployment, job_id, "yield_requested_at = lockstep_now()")
        until(lambda: deployment.job(job_id).state == "queued")
        picture = await deployment.generate()
    if deployment.job(picture).state == "queued":
        worker.serve()
    assert deployment.job(picture).state == "succeeded"
    left = deployment.job(job_id)
    assert (left.state, left.attempt, left.yields) == ("queued", 0, 1)
    assert left.checkpoint["step"] > 0
    deployment.bring_back()
    worker.serve()
    assert deployment.job(job_id).state == "succeeded"
    assert deployment.outcomes(job_id) == ["returned", "succeeded"]


async def test_nothing_is_claimed_by_a_worker_whose_engine_does_not_start(deployment):
    job_id = await deployment.generate()
    assert deployment.supervisor(child=NeverUp(load_for_ever)).serve() == 0
    assert (deployment.job(job_id).state, deployment.job(job_id).attempt) == ("queued", 0)
