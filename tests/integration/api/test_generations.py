"""Accepting generations: placeholders, concepts, models, sizes and defaults."""

from __future__ import annotations

import pytest

from tests.serving import Tenant, refused


@pytest.fixture(scope="module")
def settled(deployment, url):
    """A tenant with a trained concept, to which nothing more happens."""
    tenant = Tenant(deployment, url, "settled")
    with tenant.http:
        tenant.trained("tom")
        yield tenant


def test_a_generation_fills_in_what_was_left_open_from_its_model(acme):
    job = acme.generate("a cat")
    assert (job["object"], job["state"], job["result"]) == ("generation", "queued", None)
    params = job["params"]
    assert (params["model"], params["steps"], params["guidance"]) == ("storybook", 50, 6.0)
    assert (params["n"], params["size"], params["concepts"]) == (1, "64x64", [])
    assert acme.generate("a cat")["params"]["seed"] != params["seed"]


def test_what_is_asked_for_is_kept(acme):
    asked = {"negative_prompt": "a dog", "model": "other", "steps": 2, "guidance": 0, "n": 3, "seed": 0}
    params = acme.generate(**asked, size="128x64")["params"]
    assert {name: params[name] for name in asked} == asked
    assert params["size"] == "128x64"
    assert acme.generate(size=128)["params"]["size"] == "128x128"


def test_pictures_are_exact_pngs_that_say_how_they_were_drawn_unless_something_else_is_asked_for(acme):
    chosen = ("format", "quality", "metadata")
    params = acme.generate()["params"]
    assert [params[name] for name in chosen] == ["png", None, True]
    params = acme.generate(format="webp", quality=80, metadata=False)["params"]
    assert [params[name] for name in chosen] == ["webp", 80, False]


def test_a_picture_is_served_as_the_format_it_has(acme):
    job = acme.generate(format="webp")
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    (image,) = acme.http.get(f"/v1/generations/{job['id']}").json()["result"]["images"]
    content = acme.http.get(image["content_url"])
    assert (image["media_type"], content.headers["content-type"]) == ("image/webp", "image/webp")
    assert "0.webp" in content.headers["content-disposition"]
    assert acme.http.get(f"/v1/files/{image['file_id']}").json()["media_type"] == "image/webp"


def test_a_placeholder_is_the_concept_of_that_name_without_being_listed(acme):
    concept_id = acme.trained()
    (use,) = acme.generate("<tom> on the beach")["params"]["concepts"]
    assert use == {
        "id": concept_id,
        "as": "tom",
        "version": 1,
        "key_lock": "local",
        "gate_bias": 0.65,  # what its training recommends
        "gate_temperature": 0.15,
    }


def test_a_listed_concept_takes_part_as_it_is_told_to(acme):
    concept_id = acme.trained()
    acme.trained()
    listed = {"id": concept_id, "as": "him", "version": 1, "key_lock": "global", "gate_temperature": 0.2}
    (use,) = acme.generate("<him> on the beach", concepts=[listed])["params"]["concepts"]
    assert use == {**listed, "gate_bias": 0.5}  # the model's own for that key lock


def test_listed_and_unlisted_concepts_meet_in_one_prompt(acme):
    acme.trained("tom")
    acme.trained("ann")
    uses = acme.generate("<tom> with <her>", concepts=[{"name": "ann", "as": "her"}])["params"]["concepts"]
    assert sorted(use["as"] for use in uses) == ["her", "tom"]


def test_the_version_is_fixed_when_the_job_is_accepted(acme):
    acme.trained()
    job = acme.generate("<tom>")
    acme.trained()
    assert acme.http.get(job["links"]["self"]).json()["params"]["concepts"][0]["version"] == 1
    assert acme.generate("<tom>")["params"]["concepts"][0]["version"] == 2


def test_pictures_are_the_result_each_with_its_address(acme):
    job = acme.generate()
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    (image,) = acme.http.get(f"/v1/generations/{job['id']}").json()["result"]["images"]
    content = acme.http.get(image["content_url"])
    assert (content.status_code, content.headers["content-type"]) == (200, "image/png")
    assert acme.http.get(f"/v1/files/{image['file_id']}").json()["job_id"] == job["id"]


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"prompt": "<ann> on the beach"}, 422, "unknown-placeholder", "prompt"),
        ({"prompt": "<Tom> on the beach"}, 422, "unknown-placeholder", "prompt"),
        ({"negative_prompt": "<tom>"}, 422, "unknown-placeholder", "negative_prompt"),
        ({"prompt": "a cat", "concepts": [{"name": "tom"}]}, 422, "concept-unused", "concepts.0"),
        ({"concepts": [{"name": "tom", "as": "him"}]}, 422, "concept-unused", "concepts.0"),
        ({"concepts": [{"name": "tom"}, {"name": "tom"}]}, 422, "placeholder-taken", "concepts.1"),
        ({"concepts": [{"name": "ann", "as": "tom"}]}, 404, "not-found", "concepts.0"),
        ({"concepts": [{"name": "tom", "version": 9}]}, 404, "not-found", "concepts.0.version"),
        ({"concepts": [{"as": "tom"}]}, 422, "validation", "concepts.0"),
        ({"concepts": [{"id": "cpt_x", "name": "tom"}]}, 422, "validation", "concepts.0"),
        ({"concepts": [{"name": "tom", "gate_bias": 1.5}]}, 422, "validation", "concepts.0.gate_bias"),
        ({"model": "other"}, 409, "concept-model-mismatch", "prompt"),
        ({"model": "dall-e"}, 422, "model-unknown", "model"),
        ({"size": "65x64"}, 422, "size-unsupported", "size"),
        ({"size": 4096}, 422, "size-unsupported", "size"),
        ({"size": 0}, 422, "size-unsupported", "size"),
        ({"format": "gif"}, 422, "validation", "format"),
        ({"format": "png", "quality": 80}, 422, "validation", "quality"),
        ({"format": "webp", "quality": 0}, 422, "validation", "quality"),
        ({"metadata": "prompt"}, 422, "validation", "metadata"),
        ({"size": "big"}, 422, "validation", "size"),
        ({"prompt": ""}, 422, "validation", "prompt"),
        ({"prompt": "a cat\0"}, 422, "validation", "prompt"),
        ({"prompt": "x" * 2001}, 422, "validation", "prompt"),
        ({"n": 17}, 422, "validation", "n"),
        ({"steps": 0}, 422, "validation", "steps"),
        ({"colour": "red"}, 422, "validation", "colour"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_code_and_leaves_nothing(settled, change, status, code, param):
    before = settled.jobs()
    response = settled.http.post("/v1/generations", json={"prompt": "<tom> on the beach"} | change)
    assert refused(response, status, code)["error"]["param"] == param
    assert response.headers["x-should-retry"] == "false"
    assert settled.jobs() == before


def test_an_untrained_concept_cannot_be_drawn_yet(acme):
    acme.train()
    assert refused(acme.http.post("/v1/generations", json={"prompt": "<tom>"}), 409, "concept-not-ready")


def test_concepts_of_two_models_do_not_meet(acme):
    acme.trained("tom")
    acme.trained("rex", superclass="dragon", base_model="other")
    assert acme.generate("<rex>")["params"]["model"] == "other"
    refused(acme.http.post("/v1/generations", json={"prompt": "<tom> and <rex>"}), 409, "concept-model-mismatch")


def test_a_deleted_concept_is_no_placeholder_any_more(acme):
    acme.trained()
    acme.http.delete("/v1/concepts/tom")
    refused(acme.http.post("/v1/generations", json={"prompt": "<tom>"}), 422, "unknown-placeholder")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid-request"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "invalid-request"),
        ({"content": b'{"prompt": "\xff"}', "headers": {"Content-Type": "application/json"}}, 400, "invalid-request"),
        ({"content": rb'{"prompt": "\ud800"}', "headers": {"Content-Type": "application/json"}}, 422, "validation"),
        (
            {"content": b'{"prompt": "a", "guidance": NaN}', "headers": {"Content-Type": "application/json"}},
            422,
            "validation",
        ),
        ({"json": ["a cat"]}, 422, "validation"),
        ({"content": b'{"prompt": "a cat"}'}, 422, "validation"),  # no content type
        ({}, 422, "validation"),
    ],
    ids=["cut", "deep", "not-utf-8", "surrogate", "nan", "list", "untyped", "empty"],
)
def test_a_body_that_is_no_json_object_is_refused(acme, sent, status, code):
    response = acme.http.post("/v1/generations", **sent)
    refused(response, status, code)
    assert response.headers["x-should-retry"] == "false"
