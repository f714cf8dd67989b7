"""The studio as it is served: forms mean what requests of the API mean, and roles hold as they do there."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from core.jobs.states import JobState
from core.members.roles import Role
from tests.integration.api.members import signed_in
from tests.integration.api.pages.test_operations import parts, seen
from tests.serving import Tenant, created, picture_bytes, refused
from tests.waiting import until

HTMX = {"HX-Request": "true"}


@pytest.fixture
def member(acme: Tenant) -> Iterator[httpx.Client]:
    """Somebody who works in a browser."""
    with signed_in(acme, Role.MEMBER) as client:
        yield client


def job_of(response: httpx.Response) -> str:
    """The job that an answer leads to, or follows."""
    assert response.status_code in {200, 303}, response.text
    told = response.headers.get("location") or response.headers.get("hx-redirect") or response.text
    (job_id, *_) = re.findall(r"job_[a-z0-9]+", told)
    return str(job_id)


def params(tenant: Tenant, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = tenant.http.get(f"/v1/jobs/{job_id}").json()
    return job["params"]  # type: ignore[no-any-return]


def drawn(tenant: Tenant, client: httpx.Client, **fields: str) -> str:
    """Id of a picture that the form had drawn."""
    job_id = job_of(client.post("/studio/generations", data=fields))
    result = tenant.deployment.succeed(tenant.deployment.claim(job_id))
    return str(result["images"][0]["file_id"])


def student(tenant: Tenant) -> str:
    """A student of the first base model."""
    tenant.distilled("swift", teacher="storybook")
    return "swift"


def test_the_form_asks_for_what_its_dials_say(acme: Tenant, member: httpx.Client):
    acme.trained("tom")
    fields = {"prompt": "<tom> in the snow", "bias.tom": "0.4", "lock.tom": "global", "seed": "7", "n": "2"}
    asked = params(acme, job_of(member.post("/studio/generations", data={**fields, "bias.ann": "0.9", "steps": ""})))
    (tom,) = asked["concepts"]
    assert (tom["as"], tom["gate_bias"], tom["key_lock"]) == ("tom", 0.4, "global")
    assert (asked["seed"], asked["n"]) == (7, 2)


def test_the_address_fills_in_the_form(acme: Tenant, member: httpx.Client):
    acme.trained("tom")
    told = member.get("/studio", params={"prompt": "<tom> & <tim>", "bias.tom": "0.25", "seed": "11"}).text
    assert "&lt;tom&gt; &amp; &lt;tim&gt;</textarea>" in told
    assert re.search(r'name="bias\.tom"[^>]*value="0\.25"', told)
    assert 'value="11"' in told
    assert "&lt;tim&gt; is no concept that you can draw with." in told


def test_a_dial_stands_where_the_training_found_it_best(acme: Tenant, member: httpx.Client):
    acme.trained("tom")
    told = member.get("/studio/dials", params={"prompt": "<tom>"}).text
    assert re.search(r'name="bias\.tom"[^>]*value="0\.65"', told)


def test_a_granted_concept_is_drawn_by_its_plain_name_until_there_is_one_of_ones_own(
    acme: Tenant, rival: Tenant, member: httpx.Client
):
    granted = rival.trained("tom")
    created(rival.http.post("/v1/concepts/tom/grants", json={"tenant": acme.id}))
    assert 'data-insert="&lt;tom&gt;"' in member.get("/studio").text
    fields = {"prompt": "<tom> in the snow", "bias.tom": "0.4", "seed": "7"}
    assert re.search(r'name="bias\.tom"[^>]*value="0\.4"', member.get("/studio/dials", params=fields).text)
    (tom,) = params(acme, job_of(member.post("/studio/generations", data=fields)))["concepts"]
    assert (tom["id"], tom["as"], tom["gate_bias"]) == (granted, "tom", 0.4)
    compared = member.post("/studio/comparisons", data={"prompt": "<tom>", "by": "lock"}, headers=HTMX)
    assert len(set(re.findall(r"job_[a-z0-9]+", compared.text))) == 2

    own = acme.trained("tom")
    (tom,) = params(acme, job_of(member.post("/studio/generations", data=fields)))["concepts"]
    assert tom["id"] == own
    assert member.get("/studio").text.count('data-insert="&lt;tom&gt;"') == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "<tim>"}, "prompt"),
        ({"prompt": "a cat", "n": "99"}, "n"),
        ({"prompt": "a cat", "seed": "x"}, "seed"),
        ({"prompt": "a cat", "model": "nowhere"}, "model"),
        ({"prompt": "a cat", "steps": "0"}, "steps"),
        ({}, "prompt"),
    ],
)
def test_what_is_wrong_is_told_with_the_field(acme: Tenant, member: httpx.Client, fields: dict[str, str], param: str):
    response = member.post("/studio/generations", data=fields, headers=HTMX)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param
    assert acme.jobs() == 0


def test_a_draft_is_drawn_in_one_step_and_cancels_the_one_before_it(acme: Tenant, member: httpx.Client):
    student(acme)
    fields = {"prompt": "a cat", "seed": "3", "n": "4", "guidance": "6"}
    first = job_of(member.post("/studio/drafts", data=fields))
    second = job_of(member.post("/studio/drafts", data={**fields, "draft": first}))
    asked = params(acme, second)
    assert (asked["model"], asked["steps"], asked["n"], asked["seed"]) == ("swift", 1, 1, 3)
    jobs = {job_id: acme.http.get(f"/v1/jobs/{job_id}").json() for job_id in (first, second)}
    assert [jobs[job_id]["state"] for job_id in (first, second)] == ["canceled", "queued"]
    assert (jobs[second]["priority"], jobs[second]["draft"]) == ("high", True)
    assert jobs[second]["deadline_at"] is not None


def test_a_draft_that_is_being_drawn_is_asked_to_stop(acme: Tenant, member: httpx.Client):
    student(acme)
    first = job_of(member.post("/studio/drafts", data={"prompt": "a cat"}))
    running = acme.deployment.claim(first)
    member.post("/studio/drafts", data={"prompt": "a cat", "draft": first})
    assert acme.http.get(f"/v1/jobs/{first}").json()["cancel_requested"]
    acme.deployment.end(running, JobState.CANCELED)


def test_the_picture_of_a_draft_is_in_no_gallery_and_goes_with_the_next_one(acme: Tenant, member: httpx.Client):
    student(acme)
    first = job_of(member.post("/studio/drafts", data={"prompt": "a cat"}))
    (image,) = acme.deployment.succeed(acme.deployment.claim(first))["images"]
    assert image["file_id"] not in member.get("/studio/pictures").text
    assert member.get(f"/v1/files/{image['file_id']}/content").status_code == 200
    member.post("/studio/drafts", data={"prompt": "a cat", "draft": first})
    assert member.get(f"/v1/files/{image['file_id']}").status_code == 404


def test_only_drafts_make_way_for_drafts(acme: Tenant, member: httpx.Client):
    student(acme)
    wanted = job_of(member.post("/studio/generations", data={"prompt": "a cat"}))
    member.post("/studio/drafts", data={"prompt": "a cat", "draft": wanted})
    kept = drawn(acme, member, prompt="a dog")
    drawn_by = acme.http.get(f"/v1/files/{kept}").json()["job_id"]
    member.post("/studio/drafts", data={"prompt": "a cat", "draft": drawn_by})
    assert not acme.http.get(f"/v1/jobs/{wanted}").json()["cancel_requested"]
    assert acme.http.get(f"/v1/files/{kept}").status_code == 200


def test_without_a_student_there_are_no_drafts(acme: Tenant, member: httpx.Client):
    response = member.post("/studio/drafts", data={"prompt": "a cat", "model": "other"}, headers=HTMX)
    assert refused(response, 409, "model-not-ready")["error"]["param"] == "model"


def test_a_job_is_followed_to_its_end(acme: Tenant, member: httpx.Client):
    job_id = job_of(member.post("/studio/generations", data={"prompt": "a cat"}, headers=HTMX))
    with member.stream("GET", f"/studio/live/jobs/{job_id}", timeout=20) as response:
        told = parts(response)
        assert "queued" in next(told)
        acme.deployment.succeed(acme.deployment.claim(job_id))
        said = list(told)
    assert "succeeded" in said[-2]
    assert said[-1].strip() == "over"


def test_the_gallery_tells_what_each_picture_was_drawn_from(acme: Tenant, member: httpx.Client):
    acme.trained("tom")
    file_id = drawn(acme, member, prompt="<tom> in the snow", seed="42")
    assert "<tom> in the snow storybook, seed 42" in seen(member.get("/studio/pictures"))
    told = seen(member.get(f"/studio/pictures/{file_id}"))
    assert "version 1, local lock, bias 0.65" in told


def test_a_picture_leads_back_to_the_form_that_draws_it(acme: Tenant, member: httpx.Client):
    acme.trained("tom")
    file_id = drawn(acme, member, **{"prompt": "<tom> in the snow", "seed": "42", "bias.tom": "0.3"})
    told = html.unescape(member.get(f"/studio/pictures/{file_id}").text)
    (address,) = re.findall(r'href="(/studio\?[^"]*)"', told)
    said = parse_qs(urlsplit(address).query)
    assert (said["prompt"], said["seed"], said["bias.tom"]) == (["<tom> in the snow"], ["42"], ["0.3"])


def test_a_picture_is_drawn_again_and_deleted(acme: Tenant, member: httpx.Client):
    file_id = drawn(acme, member, prompt="a cat", seed="5")
    again = job_of(member.post(f"/studio/pictures/{file_id}/reproduce"))
    assert params(acme, again)["seed"] == 5
    assert "What it draws again" in seen(member.get(f"/studio/jobs/{again}"))
    response = member.post(f"/studio/pictures/{file_id}/delete", headers=HTMX)
    assert response.headers["hx-redirect"] == "/studio/pictures"
    assert file_id not in member.get("/studio/pictures").text


@pytest.mark.parametrize("name", ["curl", "python"])
def test_the_code_of_a_picture_draws_it_again(acme: Tenant, member: httpx.Client, name: str, tmp_path: Any):
    acme.trained("tom")
    prompt = '<tom>\'s "best" $day\nJSON\n`here` \\ <tom>'
    file_id = drawn(acme, member, **{"prompt": prompt, "seed": "9", "bias.tom": "0.35", "lock.tom": "global"})
    original = acme.http.get(f"/v1/files/{file_id}").json()["job_id"]
    told = member.get(f"/studio/pictures/{file_id}").text
    (code,) = re.findall(rf'<pre id="as-{name}"[^>]*>(.*?)</pre>', told, re.S)
    command = ["sh", "-c"] if name == "curl" else [sys.executable, "-c"]
    environment = {"LOCKSTEP_API_KEY": acme.deployment.new_key(acme.id), "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    jobs = acme.jobs()
    with subprocess.Popen([*command, html.unescape(code)], env=environment, cwd=tmp_path) as run:
        until(lambda: acme.jobs() > jobs)
        job = acme.deployment.claim_of(acme.id)
        acme.deployment.succeed(job)
    assert run.returncode == 0
    assert params(acme, job.id) == params(acme, original)
    assert len(list(tmp_path.glob("*.png"))) == (1 if name == "python" else 0)


def test_a_concept_is_learned_from_the_form(acme: Tenant, member: httpx.Client):
    files = [member.post("/v1/files", files={"file": (f"{n}.png", picture_bytes())}).json()["id"] for n in range(2)]
    fields = {"concept": "tom", "superclass": "cat", "images": files, "flip": "yes", "base_model": "storybook"}
    response = member.post("/studio/trainings", data=fields)
    job_id = job_of(response)
    assert response.headers["location"] == f"/studio/trainings/{job_id}"
    assert (params(acme, job_id)["images"], params(acme, job_id)["flip"]) == (files, True)
    assert "waits to be learned" in seen(member.get("/studio/concepts"))
    acme.deployment.succeed(acme.deployment.claim(job_id))
    assert "It is learned: version 1" in seen(member.get(f"/studio/trainings/{job_id}"))
    assert f"/v1/files/{files[0]}/content" in member.get("/studio/concepts").text
    assert "identity 0.9" in seen(member.get("/studio/concepts/tom"))


@pytest.mark.parametrize(
    ("fields", "param"), [({"superclass": "cat"}, "concept"), ({"concept": "tom", "superclass": "cat"}, "images")]
)
def test_what_is_wrong_with_a_training_is_told(member: httpx.Client, fields: dict[str, str], param: str):
    response = member.post("/studio/trainings", data=fields, headers=HTMX)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)


def test_a_training_is_paused_resumed_canceled_and_tried_again(acme: Tenant, member: httpx.Client):
    job_id = acme.train("tom")["id"]
    member.post(f"/studio/jobs/{job_id}/pause")
    assert "It was paused." in seen(member.get(f"/studio/trainings/{job_id}"))
    member.post(f"/studio/jobs/{job_id}/resume")
    assert "paused" not in seen(member.get(f"/studio/trainings/{job_id}"))
    member.post(f"/studio/jobs/{job_id}/cancel")
    assert "canceled" in seen(member.get(f"/studio/trainings/{job_id}"))
    again = member.post(f"/studio/jobs/{job_id}/retry")
    assert re.fullmatch(r"/studio/trainings/job_\w+", again.headers["location"])
    assert not again.headers["location"].endswith(job_id)


def test_a_concept_is_deleted(acme: Tenant, member: httpx.Client):
    concept_id = acme.trained("tom")
    assert member.post(f"/studio/concepts/{concept_id}/delete").status_code == 303
    assert "No concept yet." in seen(member.get("/studio/concepts"))


def test_key_locks_are_compared_on_one_seed(acme: Tenant, member: httpx.Client):
    acme.trained("tom", key_lock="trained")
    response = member.post("/studio/comparisons", data={"prompt": "<tom>", "by": "lock", "seed": "4"})
    ids = parse_qs(urlsplit(response.headers["location"]).query)["job"]
    asked = [params(acme, job_id) for job_id in ids]
    assert [one["concepts"][0]["key_lock"] for one in asked] == ["global", "local", "trained"]
    assert {one["seed"] for one in asked} == {4}
    assert all(
        f'sse-connect="/studio/live/jobs/{job_id}"' in member.get(response.headers["location"]).text for job_id in ids
    )


def test_a_teacher_is_compared_with_its_students(acme: Tenant, member: httpx.Client):
    student(acme)
    response = member.post("/studio/comparisons", data={"prompt": "a cat", "by": "model"})
    asked = [params(acme, job_id) for job_id in parse_qs(urlsplit(response.headers["location"]).query)["job"]]
    assert [one["model"] for one in asked] == ["storybook", "swift"]
    assert len({one["seed"] for one in asked}) == 1


def test_a_comparison_with_nothing_is_refused(acme: Tenant, member: httpx.Client):
    response = member.post("/studio/comparisons", data={"prompt": "a cat", "by": "lock"}, headers=HTMX)
    assert response.status_code == 422
    assert acme.jobs() == 0


def test_a_budget_that_is_used_up_is_told_in_words(acme: Tenant, member: httpx.Client):
    assert acme.http.put("/v1/budgets", json={"limit": 0}).status_code == 200
    response = member.post("/studio/generations", data={"prompt": "a cat"}, headers=HTMX)
    assert response.status_code == 402
    assert "GPU" in response.json()["detail"]


ACTS = (
    "/studio/drafts",
    "/studio/generations",
    "/studio/comparisons",
    "/studio/trainings",
    "/studio/pictures/{file}/reproduce",
    "/studio/pictures/{file}/delete",
    "/studio/concepts/{concept}/delete",
    "/studio/jobs/{job}/cancel",
    "/studio/jobs/{job}/retry",
)


@pytest.mark.parametrize("act", ACTS)
def test_viewers_look_and_do_nothing(acme: Tenant, act: str):
    concept = acme.trained("tom")
    job = acme.generate("<tom>")["id"]
    ids = {"file": acme.upload()["id"], "concept": concept, "job": job}
    with signed_in(acme, Role.VIEWER) as viewer:
        refused(viewer.post(act.format(**ids), data={"prompt": "a cat"}), 403, "forbidden")
        assert "disabled" in viewer.get("/studio").text
    assert acme.http.get("/v1/concepts/tom").status_code == 200
    assert acme.http.get(f"/v1/jobs/{job}").json()["state"] == "queued"


@pytest.mark.parametrize("act", ACTS)
def test_forms_of_other_sites_do_nothing(acme: Tenant, member: httpx.Client, act: str):
    ids = {"file": "file_x", "concept": "tom", "job": "job_x"}
    headers = {"Origin": "https://evil.example"}
    refused(member.post(act.format(**ids), data={"prompt": "a cat"}, headers=headers), 403, "forbidden")
    assert acme.jobs() == 0


def test_nobody_sees_or_touches_what_is_anothers(acme: Tenant, rival: Tenant, member: httpx.Client):
    concept = rival.trained("rex")
    job = rival.generate("<rex>")["id"]
    result = rival.deployment.succeed(rival.deployment.claim(job))
    file_id = result["images"][0]["file_id"]
    for path in (
        f"/studio/pictures/{file_id}",
        f"/studio/jobs/{job}",
        f"/studio/live/jobs/{job}",
        f"/studio/concepts/{concept}",
    ):
        assert member.get(path).status_code == 404, path
    for path in (
        f"/studio/pictures/{file_id}/delete",
        f"/studio/jobs/{job}/cancel",
        f"/studio/concepts/{concept}/delete",
    ):
        assert member.post(path).status_code == 404, path
    assert job not in member.get(f"/studio?job={job}&draft={job}").text


def test_strangers_sign_in_and_come_back(acme: Tenant):
    with httpx.Client(base_url=acme.base_url, verify=False) as stranger:
        response = stranger.get("/studio/pictures", headers={"Accept": "text/html"})
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in?to=/studio/pictures")


def test_everybody_begins_where_his_pages_begin(acme: Tenant, operator: Tenant):
    assert acme.http.get("/").headers["location"] == "/studio"
    assert operator.http.get("/").headers["location"] == "/admin"
