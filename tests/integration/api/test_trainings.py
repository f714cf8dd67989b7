"""Accepting trainings."""

from __future__ import annotations

import pytest

from tests.serving import Tenant, created, refused


@pytest.fixture(scope="module")
def settled(deployment, url):
    """A tenant with one picture, to which nothing more happens."""
    tenant = Tenant(deployment, url, "settled")
    with tenant.http:
        yield tenant, tenant.upload()["id"]


def test_a_training_of_a_new_name_makes_the_concept_and_fills_in_what_was_left_open(acme):
    job = acme.train()
    assert (job["object"], job["kind"], job["state"], job["attempt"]) == ("training", "training", "queued", 0)
    params = job["params"]
    assert (params["concept"], params["superclass"], params["base_model"]) == ("tom", "cat", "storybook")
    assert (params["key_lock"], params["steps"], params["flip"]) == ("local", None, True)
    assert 0 <= params["seed"] < 2**31
    assert job["warnings"] == []
    assert acme.http.get("/v1/concepts/tom").json()["id"] == params["concept_id"]
    assert acme.http.get(job["links"]["self"]).json() == job


def test_what_is_asked_for_is_kept(acme):
    asked = {"base_model": "other", "key_lock": "global", "steps": 77, "seed": 5, "flip": False}
    params = acme.train(**asked)["params"]
    assert {name: params[name] for name in asked} == asked


def test_a_second_training_needs_no_superclass_and_may_name_the_concept_by_id(acme):
    concept_id = acme.train()["params"]["concept_id"]
    again = acme.train(concept_id, superclass=None)
    assert (again["params"]["concept_id"], again["params"]["superclass"]) == (concept_id, "cat")


def test_a_trained_concept_is_the_result(acme):
    job = acme.train()
    result = acme.deployment.succeed(acme.deployment.claim(job["id"]))
    shown = acme.http.get(f"/v1/trainings/{job['id']}").json()
    assert (shown["state"], shown["error"]) == ("succeeded", None)
    content_url = f"{acme.base_url}/v1/files/{result['file_id']}/content"
    assert shown["result"] == {**result, "content_url": content_url}
    assert len(acme.http.get(content_url).content) == result["size_bytes"]


def test_a_version_is_gone_on_from_with_its_pictures_and_added_ones(acme):
    acme.trained(key_lock="global")
    (earlier,) = acme.http.get("/v1/trainings").json()["data"]
    added = acme.upload()["id"]
    again = acme.train(images=[added], superclass=None, continue_from=1)["params"]
    assert again["images"] == [*earlier["params"]["images"], added]
    assert (again["continue_from"], again["key_lock"]) == (1, "global")
    assert earlier["params"]["continue_from"] is None


def test_pictures_that_are_gone_are_not_learned_from_again(acme):
    acme.trained()
    (earlier,) = acme.http.get("/v1/trainings").json()["data"]
    for file_id in earlier["params"]["images"]:
        assert acme.http.delete(f"/v1/files/{file_id}").status_code == 204
    added = acme.upload()["id"]
    assert acme.train(images=[added], continue_from=1)["params"]["images"] == [added]
    body = {"concept": "tom", "images": [], "continue_from": 1}
    assert refused(acme.http.post("/v1/trainings", json=body), 422, "no-pictures")["error"]["param"] == "images"


def test_a_version_alone_may_be_trained_on(acme):
    acme.trained()
    (earlier,) = acme.http.get("/v1/trainings").json()["data"]
    assert acme.train(images=[], continue_from=1)["params"]["images"] == earlier["params"]["images"]


@pytest.mark.parametrize("trained", [False, True])
def test_what_is_gone_on_from_must_be_there(acme, trained):
    if trained:
        acme.trained()
    body = {"concept": "tom", "superclass": "cat", "images": [acme.upload()["id"]], "continue_from": 2}
    problem = refused(acme.http.post("/v1/trainings", json=body), 404, "not-found")
    assert problem["error"]["param"] == "continue_from"
    assert len(acme.http.get("/v1/concepts").json()["data"]) == trained


def test_an_unlisted_superclass_is_a_warning_not_an_error(acme):
    (warning,) = acme.train(superclass="dragon")["warnings"]
    assert (warning["code"], warning["param"]) == ("superclass-unlisted", "superclass")
    assert "dragon" in warning["message"]
    assert acme.train("rex", superclass="dragon", base_model="other")["warnings"] == []  # it lists no words


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"images": []}, 422, "no-pictures", "images"),
        ({"images": ["file_x"] * 11}, 422, "too-many-pictures", "images"),
        ({"images": ["file_gone"]}, 404, "not-found", "images.0"),
        ({"images": "file_x"}, 422, "validation", "images"),
        ({"base_model": "dall-e"}, 422, "model-unknown", "base_model"),
        ({"superclass": None}, 422, "validation", "superclass"),
        ({"concept": "cpt_gone"}, 404, "not-found", "concept"),
        ({"concept": "Tom"}, 422, "validation", "concept"),
        ({"key_lock": "none"}, 422, "validation", "key_lock"),
        ({"steps": 0}, 422, "validation", "steps"),
        ({"seed": 2**31}, 422, "validation", "seed"),
        ({"epochs": 3}, 422, "validation", "epochs"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_its_code_and_leaves_nothing(settled, change, status, code, param):
    tenant, file_id = settled
    body = {"concept": "tom", "superclass": "cat", "images": [file_id]} | change
    response = tenant.http.post("/v1/trainings", json=body)
    assert refused(response, status, code)["error"]["param"] == param
    assert response.headers["x-should-retry"] == "false"
    assert tenant.jobs() == 0
    assert tenant.http.get("/v1/concepts").json()["data"] == []


def test_a_missing_list_of_pictures_is_no_pictures(acme):
    response = acme.http.post("/v1/trainings", json={"concept": "tom", "superclass": "cat"})
    refused(response, 422, "no-pictures")


def test_a_picture_counts_once(acme):
    file_id = acme.upload()["id"]
    body = {"concept": "tom", "superclass": "cat", "images": [file_id, file_id]}
    assert refused(acme.http.post("/v1/trainings", json=body), 422, "validation")["error"]["param"] == "images.1"


def test_a_concepts_file_is_no_picture(acme):
    acme.trained()
    file = acme.http.get("/v1/files", params={"purpose": "concept"}).json()["data"][0]
    body = {"concept": "tom", "images": [file["id"]]}
    assert refused(acme.http.post("/v1/trainings", json=body), 422, "validation")["error"]["param"] == "images.0"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"superclass": "dog"}, "conflict", "superclass"),
        ({"base_model": "other"}, "concept-model-mismatch", "base_model"),
    ],
)
def test_an_existing_concept_is_not_made_another(acme, change, code, param):
    acme.train()
    body = {"concept": "tom", "images": [acme.upload()["id"]]} | change
    assert refused(acme.http.post("/v1/trainings", json=body), 409, code)["error"]["param"] == param


def test_ten_pictures_are_accepted(acme):
    assert len(acme.train(images=[acme.upload()["id"] for _ in range(10)])["params"]["images"]) == 10


def test_trainings_are_listed_apart_from_generations(acme):
    training, generation = acme.train(), acme.generate()
    assert [job["id"] for job in acme.http.get("/v1/trainings").json()["data"]] == [training["id"]]
    refused(acme.http.get(f"/v1/trainings/{generation['id']}"), 404, "not-found")
    refused(acme.http.post(f"/v1/trainings/{generation['id']}/cancel"), 404, "not-found")
    queued = acme.http.get("/v1/trainings", params={"state": "running"}).json()
    assert queued["data"] == []


def test_two_trainings_may_make_one_concept_at_once(acme):
    first = created(acme.http.post("/v1/concepts", json={"name": "tom", "superclass": "cat"}))
    assert acme.train()["params"]["concept_id"] == acme.train()["params"]["concept_id"] == first["id"]
