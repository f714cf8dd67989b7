"""What a client sees of pictures that were judged."""

from __future__ import annotations

from core.jobs import execution
from core.jobs.execution import Ending
from core.jobs.states import JobState

SAFE, UNSAFE = {"score": 0.1, "unsafe": False}, {"score": 0.9, "unsafe": True}


def ended(tenant, job, result):
    """The job's result as a client sees it, once a worker has ended it with this one."""
    claimed = tenant.deployment.claim(job["id"])
    with tenant.deployment.sessions.begin() as session:
        assert execution.finish(session, [Ending(claimed.id, claimed.token, JobState.SUCCEEDED, 1.5, result=result)])
    return tenant.http.get(f"/v1/generations/{job['id']}").json()["result"]


def drawn(**members):
    return {"seed": 1, "width": 64, "height": 64} | members


def test_a_verdict_stands_beside_its_picture(acme):
    image = drawn(file_id="file_1", safety=SAFE)
    result = ended(acme, acme.generate(), {"images": [image], "withheld": []})
    assert [image["safety"] for image in result["images"]] == [SAFE]
    assert result["withheld"] == []


def test_a_withheld_picture_has_a_reason_and_no_file(acme):
    withheld = drawn(code="safety-blocked", safety=UNSAFE)
    result = ended(acme, acme.generate(), {"images": [], "withheld": [withheld]})
    assert result == {"images": [], "withheld": [withheld | {"gate_bias": None, "gate_temperature": None}]}


def test_a_picture_that_nobody_judged_has_no_verdict_also_where_an_earlier_release_drew_it(acme):
    result = ended(acme, acme.generate(), {"images": [drawn(file_id="file_1")]})
    assert ([image["safety"] for image in result["images"]], result["withheld"]) == ([None], [])


def test_one_picture_of_several_is_reproduced_though_another_is_withheld(acme):
    job = acme.generate(n=3, seed=5)
    claimed = acme.deployment.claim(job["id"])
    file_id = acme.deployment.keep_picture(claimed)
    withheld = [drawn(seed=seed, code="safety-blocked", safety=UNSAFE) for seed in (5, 6)]
    result = {"images": [drawn(seed=7, file_id=file_id, safety=SAFE)], "withheld": withheld}
    with acme.deployment.sessions.begin() as session:
        assert execution.finish(session, [Ending(claimed.id, claimed.token, JobState.SUCCEEDED, 1.5, result=result)])
    alone = acme.http.post("/v1/generations/reproduce", json={"file": file_id}).json()
    assert (alone["params"]["n"], alone["params"]["seed"]) == (1, 7)
