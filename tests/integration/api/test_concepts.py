"""Concepts, their versions and their files; the models they are learned on."""

from __future__ import annotations

import hashlib

import pytest

from tests.serving import created, refused


def test_a_concept_is_found_by_its_id_and_by_its_name(acme):
    concept = created(acme.http.post("/v1/concepts", json={"name": "tom", "superclass": "cat"}))
    expected = {"object": "concept", "name": "tom", "superclass": "cat", "base_model": "storybook"}
    assert concept.items() >= {**expected, "latest_version": None}.items()
    for reference in (concept["id"], "tom"):
        assert acme.http.get(f"/v1/concepts/{reference}").json() == {**concept, "versions": []}
    assert acme.http.get("/v1/concepts").json()["data"] == [concept]


@pytest.mark.parametrize("name", ["Tom", "tom cat", "tom_cat", "-tom", "tom-", "", "t" * 65, "cpt_1", "tom\0", "tøm"])
def test_a_name_that_no_prompt_could_use_is_refused(acme, name):
    response = acme.http.post("/v1/concepts", json={"name": name, "superclass": "cat"})
    assert refused(response, 422, "validation")["error"]["param"] == "name"


@pytest.mark.parametrize("superclass", ["", "   ", "<cat>", "cat\ndog", "c" * 65, "cat\0", "cat; dog"])
def test_a_superclass_is_a_word_or_two(acme, superclass):
    response = acme.http.post("/v1/concepts", json={"name": "tom", "superclass": superclass})
    assert refused(response, 422, "validation")["error"]["param"] == "superclass"


def test_a_name_is_taken_once_and_free_after_deletion(acme):
    body = {"name": "tom", "superclass": "cat"}
    first = created(acme.http.post("/v1/concepts", json=body))
    assert refused(acme.http.post("/v1/concepts", json=body), 409, "concept-name-taken")["error"]["param"] == "name"
    assert acme.http.delete("/v1/concepts/tom").status_code == 204
    refused(acme.http.get(f"/v1/concepts/{first['id']}"), 404, "not-found")
    refused(acme.http.delete("/v1/concepts/tom"), 404, "not-found")
    assert created(acme.http.post("/v1/concepts", json=body))["id"] != first["id"]


def test_an_unknown_base_model_is_told_by_its_code(acme):
    body = {"name": "tom", "superclass": "cat", "base_model": "dall-e"}
    problem = refused(acme.http.post("/v1/concepts", json=body), 422, "model-unknown")
    assert problem["error"]["param"] == "base_model"


def test_trainings_make_versions_and_the_latest_counts(acme):
    concept_id = acme.trained()
    acme.trained()
    concept = acme.http.get("/v1/concepts/tom").json()
    assert (concept["id"], concept["latest_version"]) == (concept_id, 2)
    versions = acme.http.get("/v1/concepts/tom/versions").json()["data"]
    assert versions == concept["versions"]
    assert [(made["version"], made["key_lock"], made["gate_bias"], made["metrics"]) for made in versions] == [
        (2, "local", 0.65, {"identity": 0.9}),
        (1, "local", 0.65, {"identity": 0.9}),
    ]


def test_a_version_s_file_is_served_by_the_concept(acme):
    acme.trained()
    acme.trained()
    for made in acme.http.get("/v1/concepts/tom").json()["versions"]:
        content = acme.http.get(made["content_url"])
        assert content.status_code == 200
        assert hashlib.sha256(content.content).hexdigest() == made["sha256"]
    latest = acme.http.get("/v1/concepts/tom/content")
    assert latest.content == acme.http.get("/v1/concepts/tom/content", params={"version": 2}).content
    refused(acme.http.get("/v1/concepts/tom/content", params={"version": 3}), 404, "not-found")


def test_an_untrained_concept_has_no_file(acme):
    acme.http.post("/v1/concepts", json={"name": "tom", "superclass": "cat"})
    refused(acme.http.get("/v1/concepts/tom/content"), 409, "concept-not-ready")


def test_models_show_what_can_be_asked_of_them_and_not_where_they_lie(acme):
    listed = acme.http.get("/v1/models").json()
    assert [model["name"] for model in listed["data"]] == ["other", "storybook"]
    model = acme.http.get("/v1/models/storybook").json()
    assert (model["size"], model["superclasses"], model["defaults"]["steps"]) == (64, ["cat", "dog"], 50)
    assert model == acme.http.get(f"/v1/models/{model['id']}").json() == listed["data"][1]
    assert "location" not in model
    refused(acme.http.get("/v1/models/dall-e"), 404, "not-found")
