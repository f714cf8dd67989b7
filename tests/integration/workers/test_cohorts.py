"""Trainings of several customers side by side in one claim: each with its own end."""

from __future__ import annotations

import pytest

from tests.deployment import serving
from tests.waiting import until


def step(deployment, job_id):
    return (deployment.job(job_id).progress or {}).get("step", 0)


async def test_trainings_that_wait_together_are_one_claim_and_a_concept_each(deployment, worker, child):
    engine = child.pid
    ids = [await deployment.train(steps=steps) for steps in (2, 3, 2)]
    assert worker.serve() == 3
    jobs = [deployment.job(job_id) for job_id in ids]
    assert [job.state for job in jobs] == ["succeeded"] * 3
    assert [job.progress["steps"] for job in jobs] == [2, 3, 2]
    assert child.pid == engine  # and it holds the model still
    assert len({job.result["file_id"] for job in jobs}) == 3
    assert deployment.column("SELECT DISTINCT started_at FROM jobs WHERE id = ANY (:ids)", ids=ids)[1:] == []


async def test_no_more_run_side_by_side_than_a_cohort_holds(deployment, worker):
    ids = [await deployment.train(steps=1) for _ in range(6)]
    assert worker.serve() == 6
    sql = "SELECT count(*) FROM job_attempts WHERE job_id = ANY (:ids) GROUP BY started_at ORDER BY started_at"
    assert deployment.column(sql, ids=ids) == [4, 2]


async def test_the_seconds_of_a_cohort_are_shared_by_those_who_took_part(deployment, worker):
    short, long = await deployment.train(steps=1), await deployment.train(steps=60)
    worker.serve()
    took = deployment.one("SELECT extract(epoch FROM max(finished_at) - min(started_at)) AS s FROM jobs").s
    short, long = deployment.job(short), deployment.job(long)
    assert 0 < short.gpu_seconds < long.gpu_seconds
    assert short.gpu_seconds + long.gpu_seconds == pytest.approx(float(took), rel=0.3)


async def test_canceling_one_lets_the_others_go_on(deployment, worker):
    leaver, stayer = await deployment.train(steps=5000), await deployment.train(steps=5000)
    with serving(worker):
        until(lambda: step(deployment, stayer) > 0)
        await deployment.cancel(leaver)
        until(lambda: deployment.job(leaver).state == "canceled")
        reached = step(deployment, stayer)
        until(lambda: step(deployment, stayer) > reached)
        await deployment.cancel(stayer)
    assert deployment.job(stayer).state == "canceled"


async def test_bad_pictures_of_one_fail_it_alone(deployment, worker):
    none = await deployment.train(file_ids=[deployment.upload(b"not a picture")], steps=2)
    gone = await deployment.train(file_ids=["file_gone"], steps=2)
    good = await deployment.train(steps=2)
    assert worker.serve() == 3
    assert deployment.job(good).state == "succeeded"
    assert deployment.job(none).error["code"] == "picture-unreadable"
    assert deployment.job(gone).error["code"] == "input-missing"


async def test_a_drained_worker_gives_all_of_them_back_each_with_its_checkpoint(deployment, child):
    worker = deployment.supervisor(child=child)
    ids = [await deployment.train(steps=5000) for _ in range(2)]
    with serving(worker):
        until(lambda: all(step(deployment, job_id) > 0 for job_id in ids))
        worker.drain()
    jobs = [deployment.job(job_id) for job_id in ids]
    assert [(job.state, job.attempt) for job in jobs] == [("queued", 0)] * 2
    assert all(job.checkpoint["step"] > 0 for job in jobs)
    assert len({job.checkpoint["key"] for job in jobs}) == 2


async def test_a_training_goes_on_from_a_version_of_its_concept(deployment, worker):
    first = await deployment.train(steps=2)
    worker.serve()
    result = deployment.job(first).result
    start = {"version": 1, "file_id": result["file_id"]}
    second = await deployment.train(steps=2, concept_id=result["concept_id"], continued=start)
    gone = await deployment.train(steps=2, continued={"version": 1, "file_id": "file_gone"})
    broken = deployment.upload(b"not a concept", purpose="concept")
    bad = await deployment.train(steps=2, continued={"version": 1, "file_id": broken})
    worker.serve()
    assert (deployment.job(second).state, deployment.job(second).result["version"]) == ("succeeded", 2)
    assert deployment.job(gone).error["code"] == "input-missing"
    assert deployment.job(bad).error["code"] == "concept-unreadable"


async def test_learned_keys_make_a_version_that_can_be_drawn_with_them(deployment, worker):
    job_id = await deployment.train(steps=1, key_lock="trained")
    worker.serve()
    result = deployment.job(job_id).result
    sql = "SELECT key_lock FROM concept_versions WHERE job_id = :id"
    assert deployment.column(sql, id=job_id) == ["trained"]
    use = {"concept_id": result["concept_id"], "version": 1, "file_id": result["file_id"], "name": "tom"}
    use |= {"gate_bias": 0.6, "gate_temperature": 0.15}
    drawn = await deployment.generate(prompt="a <tom>", concepts=[use | {"key_lock": "trained"}])
    worker.serve()
    assert deployment.job(drawn).state == "succeeded"
