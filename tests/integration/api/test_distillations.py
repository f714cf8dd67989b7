"""Accepting distillations, and what can be asked of the students they make."""

from __future__ import annotations

import pytest

from core.control.families import settle
from core.jobs.recovery import promote
from tests.serving import Tenant, created, refused

ALL = {
    "teacher": "other", "prompts": ["a red cat"], "pairs": 200, "pair_steps": 20, "steps": 50, "batch_size": 8,
    "learning_rate": 2e-5, "critic_ratio": 3, "guidance": 4.0, "key_locked": False, "regression_weight": 0.5,
    "timesteps": [399], "seed": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def settled(deployment, url):
    """A tenant with a student that is ready and one that is not, to which nothing more happens."""
    tenant = Tenant(deployment, url, "settled")
    with tenant.http:
        tenant.distilled("ready")
        tenant.distil("unready")
        yield tenant


def test_a_distillation_fills_in_what_was_left_open_and_reserves_its_student(acme):
    job = acme.distil()
    assert (job["object"], job["state"], job["waits_for_children"]) == ("distillation", "queued", False)
    params = job["params"]
    assert (params["teacher"], params["pairs"], params["pair_steps"]) == ("storybook", 0, None)
    assert params["settings"] == {"regression_weight": 0.0}
    assert 0 <= params["seed"] < 2**31
    student = acme.http.get("/v1/models/swift").json()
    assert (student["id"], student["kind"], student["ready"]) == (params["model_id"], "student", False)
    assert student["is_own"] is True
    assert acme.http.get(job["links"]["self"]).json() == job


def test_what_is_asked_for_is_kept(acme):
    params = acme.distil(**ALL)["params"]
    assert {name: params[name] for name in ("teacher", "prompts", "pairs", "pair_steps", "seed")} == {
        name: ALL[name] for name in ("teacher", "prompts", "pairs", "pair_steps", "seed")
    }
    assert params["settings"] == {
        "steps": 50, "batch_size": 8, "lr": 2e-5, "critic_lr": 2e-5, "critic_ratio": 3, "guidance": 4.0,
        "key_locked": False, "regression_weight": 0.5, "student_timesteps": [399],
    }  # fmt: skip


def test_its_pairs_are_drawn_by_jobs_of_their_own_that_anybody_can_look_at(acme):
    job = acme.distil(pairs=100, pair_steps=10)
    assert job["waits_for_children"] is True
    listed = acme.http.get("/v1/jobs", params={"parent": job["id"]}).json()["data"]
    assert [(child["kind"], child["params"]["count"], child["parent_id"]) for child in listed] == [
        ("teacher_pairs", 50, job["id"])
    ] * 2
    shown = acme.http.get(listed[0]["links"]["self"])
    assert (shown.status_code, shown.json()["attempts"]) == (200, [])
    for child in reversed(listed):  # newest first, and claimed in turn
        acme.deployment.succeed(acme.deployment.claim(child["id"]))
    with acme.deployment.sessions.begin() as session:
        settle(session)
        promote(session)
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    assert acme.http.get(f"/v1/distillations/{job['id']}").json()["state"] == "succeeded"


def test_the_student_is_the_result_and_draws_in_its_own_steps(acme):
    job = acme.distil()
    result = acme.deployment.succeed(acme.deployment.claim(job["id"]))
    shown = acme.http.get(f"/v1/distillations/{job['id']}").json()["result"]
    assert shown == {**result, "content_url": f"{acme.base_url}/v1/files/{result['file_id']}/content"}
    assert len(acme.http.get(shown["content_url"]).content) == result["size_bytes"]
    student = acme.http.get("/v1/models/swift").json()
    assert (student["ready"], student["timesteps"], student["file_id"]) == (True, [999], result["file_id"])
    params = acme.generate(model="swift")["params"]
    assert (params["steps"], params["guidance"], params["model"]) == (1, 1.0, "swift")
    assert acme.generate(model="swift", steps=1, guidance=0)["params"]["guidance"] == 1.0


def test_a_concept_of_the_teacher_is_drawn_by_the_student(acme):
    acme.trained("tom")
    acme.distilled()
    params = acme.generate("<tom> on the beach", model="swift")["params"]
    assert (params["model"], len(params["concepts"])) == ("swift", 1)
    acme.trained("rex", base_model="other")
    answer = acme.http.post("/v1/generations", json={"prompt": "<rex>", "model": "swift"})
    refused(answer, 409, "concept-model-mismatch")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"steps": 50}, 422, "steps-unsupported", "steps"),
        ({"guidance": 3}, 422, "guidance-unsupported", "guidance"),
        ({"negative_prompt": "blue"}, 422, "guidance-unsupported", "negative_prompt"),
        ({"model": "unready"}, 409, "model-not-ready", "model"),
    ],
)
def test_what_a_student_cannot_do_is_an_error_of_its_own(settled, body, status, code, param):
    answer = settled.http.post("/v1/generations", json={"prompt": "a cat", "model": "ready"} | body)
    assert refused(answer, status, code)["error"]["param"] == param


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"name": "Swift"}, 422, "validation", "name"),
        ({"name": "storybook"}, 409, "model-name-taken", "name"),
        ({"name": "ready"}, 409, "model-name-taken", "name"),
        ({"name": "unready", "teacher": "other"}, 409, "conflict", "name"),
        ({"teacher": "dall-e"}, 422, "model-unknown", "teacher"),
        ({"teacher": "ready"}, 422, "model-not-base", "teacher"),
        ({"prompts": []}, 422, "no-prompts", "prompts"),
        ({"prompts": [""]}, 422, "validation", "prompts.0"),
        ({"prompts": ["a <tom>"]}, 422, "unknown-placeholder", "prompts.0"),
        ({"pairs": 10, "timesteps": [999, 499]}, 422, "validation", "pairs"),
        ({"pairs": 0, "pair_steps": 10}, 422, "validation", "pair_steps"),
        ({"pairs": 0, "regression_weight": 0.5}, 422, "validation", "regression_weight"),
        ({"timesteps": [499, 999]}, 422, "validation", "timesteps"),
        ({"timesteps": [1000]}, 422, "validation", "timesteps.0"),
        ({"critic_ratio": 0}, 422, "validation", "critic_ratio"),
        ({"ema": 0.5}, 422, "validation", "ema"),
    ],
)
def test_what_cannot_be_distilled_is_refused_and_leaves_nothing(settled, change, status, code, param):
    before = settled.jobs()
    answer = settled.http.post("/v1/distillations", json={"name": "new", "prompts": ["a cat"], "pairs": 0} | change)
    assert refused(answer, status, code)["error"]["param"] == param
    assert settled.jobs() == before
    assert settled.http.get("/v1/models/new").status_code == 404


def test_concepts_are_not_learned_on_a_student(settled):
    body = {"concept": "new", "superclass": "cat", "images": [settled.upload()["id"]], "base_model": "ready"}
    refused(settled.http.post("/v1/trainings", json=body), 422, "model-not-base")


def test_a_student_that_no_distillation_made_may_be_tried_again_also_with_another_teacher(acme):
    job = acme.distil()
    refused(acme.http.post("/v1/distillations", json={"name": "swift", "prompts": ["a cat"]}), 409, "conflict")
    acme.http.post(f"/v1/distillations/{job['id']}/cancel").raise_for_status()
    again = acme.distil(teacher="other")
    assert again["params"]["model_id"] == job["params"]["model_id"]
    other, student = (acme.http.get(f"/v1/models/{name}").json() for name in ("other", "swift"))
    assert (student["teacher_id"], student["size"]) == (other["id"], other["size"])


def test_files_can_be_listed_by_what_they_are_for(acme):
    acme.distilled()
    (file,) = acme.http.get("/v1/files", params={"purpose": "student"}).json()["data"]
    assert file["purpose"] == "student"


def test_a_concept_cannot_be_made_on_a_student(acme):
    acme.distilled()
    body = {"name": "tom", "superclass": "cat", "base_model": "swift"}
    refused(acme.http.post("/v1/concepts", json=body), 422, "model-not-base")


def test_a_student_is_its_tenants_alone(acme, rival):
    acme.distilled()
    assert rival.http.get("/v1/models/swift").status_code == 404
    refused(rival.http.post("/v1/generations", json={"prompt": "a cat", "model": "swift"}), 422, "model-unknown")
    assert rival.distilled("swift") != acme.http.get("/v1/models/swift").json()["id"]
    names = [model["name"] for model in rival.http.get("/v1/models").json()["data"]]
    assert names == ["other", "storybook", "swift"]


@pytest.mark.parametrize("kind", ["distillations", "trainings"])
def test_a_job_rests_and_goes_on(acme, kind):
    job = acme.distil() if kind == "distillations" else acme.train()
    paused = acme.http.post(f"/v1/{kind}/{job['id']}/pause").json()
    assert (paused["state"], paused["paused"], paused["pause_requested"]) == ("queued", True, True)
    resumed = acme.http.post(f"/v1/{kind}/{job['id']}/resume").json()
    assert (resumed["paused"], resumed["pause_requested"]) == (False, False)
    acme.http.post(f"/v1/{kind}/{job['id']}/cancel").raise_for_status()
    refused(acme.http.post(f"/v1/{kind}/{job['id']}/pause"), 409, "not-pausable")


def test_a_key_needs_the_scope_to_distil(acme):
    job = acme.distil()
    with acme.client(frozenset({"read", "train", "generate"})) as http:
        body = {"name": "new", "prompts": ["a cat"]}
        for path, sent in (("", body), *((f"/{job['id']}/{verb}", None) for verb in ("pause", "resume", "cancel"))):
            refused(http.post(f"/v1/distillations{path}", json=sent), 403, "forbidden")
        refused(http.post(f"/v1/jobs/{job['id']}/cancel"), 403, "forbidden")


def test_a_students_file_cannot_be_pulled_from_under_it(acme):
    acme.distilled()
    file_id = acme.http.get("/v1/models/swift").json()["file_id"]
    refused(acme.http.delete(f"/v1/files/{file_id}"), 409, "conflict")


def test_the_same_request_twice_makes_one_distillation(acme):
    body = {"name": "swift", "prompts": ["a cat"], "pairs": 100}
    first, second = (
        created(acme.http.post("/v1/distillations", json=body, headers={"Idempotency-Key": "k"})) for _ in range(2)
    )
    assert first == second
    assert acme.jobs() == 3
