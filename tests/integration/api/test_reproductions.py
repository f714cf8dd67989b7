"""Drawing again what was drawn: the same parameters, whatever has changed since."""

from __future__ import annotations

import pytest

from tests.serving import created, refused

BEACH = "<tom> on the beach"


def again(tenant, job, **headers):
    return tenant.http.post(f"/v1/generations/{job['id']}/reproduce", headers=headers)


def drawn(tenant, job):
    """The images of a job that a worker has carried out."""
    tenant.deployment.succeed(tenant.deployment.claim(job["id"]))
    return tenant.http.get(f"/v1/generations/{job['id']}").json()["result"]["images"]


def test_a_reproduction_has_the_same_parameters_and_says_whose(acme):
    acme.trained()
    job = acme.generate(BEACH, n=2, guidance=2.5, negative_prompt="grey", format="webp", quality=70)
    repeated = created(again(acme, job))
    assert repeated["id"] != job["id"]
    assert repeated["params"] == job["params"]
    assert (job["reproduces"], repeated["reproduces"]) == (None, job["id"])
    assert acme.http.get(repeated["links"]["self"]).json()["reproduces"] == job["id"]


def test_it_keeps_to_the_version_and_the_defaults_of_then(acme):
    acme.trained()
    job = acme.generate(BEACH)
    acme.trained()
    assert created(again(acme, job))["params"]["concepts"] == job["params"]["concepts"]
    acme.deployment.scalar(
        "UPDATE models SET facts = facts || '{\"default_steps\": 3}' WHERE name = 'storybook' RETURNING 1"
    )
    try:
        assert (
            created(again(acme, job))["params"]["steps"] == job["params"]["steps"] != acme.generate()["params"]["steps"]
        )
    finally:
        acme.deployment.register("storybook", size=64, superclasses=("cat", "dog"))


def test_a_sweep_is_reproduced_as_a_sweep(acme):
    acme.trained()
    job = acme.sweep({"concept": "tom", "gate_temperature": [0.1, 0.3]})
    assert created(again(acme, job))["params"] == job["params"]


def test_what_failed_or_waits_can_be_asked_for_again(acme):
    job = acme.generate()
    acme.http.post(f"/v1/generations/{job['id']}/cancel")
    assert created(again(acme, job))["state"] == "queued"


def test_a_picture_is_reproduced_alone_with_its_own_seed(acme):
    job = acme.generate(n=3, seed=40)
    third = drawn(acme, job)[2]["file_id"]
    alone = created(acme.http.post("/v1/generations/reproduce", json={"file": third}))
    assert alone["params"] == job["params"] | {"n": 1, "seed": 42}
    assert alone["reproduces"] == job["id"]


def test_a_picture_of_a_sweep_is_reproduced_at_its_value(acme):
    acme.trained()
    job = acme.sweep({"concept": "tom", "gate_bias": [0.4, 0.6]}, seed=9)
    second = drawn(acme, job)[1]["file_id"]
    params = created(acme.http.post("/v1/generations/reproduce", json={"file": second}))["params"]
    assert (params["n"], params["seed"], params["sweep"], params["concepts"][0]["gate_bias"]) == (1, 9, None, 0.6)


def test_a_key_makes_one_reproduction(acme):
    job = acme.generate()
    first, second = again(acme, job, **{"Idempotency-Key": "k"}), again(acme, job, **{"Idempotency-Key": "k"})
    assert created(first) == created(second)
    assert second.headers["idempotent-replayed"] == "true"
    assert acme.jobs() == 2


def test_a_deleted_concept_is_drawn_no_more(acme):
    acme.trained()
    job = acme.generate(BEACH)
    (image,) = drawn(acme, job)
    acme.http.delete("/v1/concepts/tom")
    acme.trained()  # another one of the same name
    response = again(acme, job)
    assert "<tom>" in refused(response, 409, "not-reproducible")["detail"]
    assert response.headers["x-should-retry"] == "false"
    refused(acme.http.post("/v1/generations/reproduce", json={"file": image["file_id"]}), 409, "not-reproducible")


def test_what_is_not_there_or_no_generation_is_not_found(acme, rival):
    job, training = acme.generate(), acme.train("ann")
    refused(again(rival, job), 404, "not-found")
    refused(again(acme, training), 404, "not-found")
    (image,) = drawn(acme, job)
    refused(rival.http.post("/v1/generations/reproduce", json={"file": image["file_id"]}), 404, "not-found")


def test_a_picture_that_no_generation_drew_is_refused(acme):
    response = acme.http.post("/v1/generations/reproduce", json={"file": acme.upload()["id"]})
    assert refused(response, 409, "not-reproducible")["error"]["param"] == "file"


@pytest.mark.parametrize("body", [{"seed": 1}, {"prompt": "a dog"}])
def test_nothing_can_be_changed_on_the_way(acme, body):
    job = acme.generate()
    response = acme.http.post(f"/v1/generations/{job['id']}/reproduce", json=body)
    refused(response, 422, "validation")


def test_reproducing_needs_the_right_to_generate(acme):
    job = acme.generate()
    with acme.client(frozenset({"read", "train"})) as reader:
        refused(reader.post(f"/v1/generations/{job['id']}/reproduce"), 403, "forbidden")
