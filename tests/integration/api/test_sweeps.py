"""Sweeps: one generation whose pictures differ by one dial of one concept."""

from __future__ import annotations

import pytest

from tests.serving import Tenant, refused

BEACH = "<tom> on the beach"
BIASES = [0.4, 0.75, 0.6]
TOM = {"concept": "tom", "gate_bias": BIASES}


@pytest.fixture(scope="module")
def settled(deployment, url):
    """A tenant with two trained concepts, to which nothing more happens."""
    tenant = Tenant(deployment, url, "settled")
    with tenant.http:
        tenant.trained("tom")
        tenant.trained("ann")
        yield tenant


def test_a_sweep_is_a_generation_with_one_picture_at_each_value(acme):
    acme.trained()
    job = acme.sweep(TOM, seed=7, steps=2)
    assert (job["object"], job["kind"], job["state"]) == ("generation", "generation", "queued")
    params = job["params"]
    assert (params["n"], params["seed"], params["steps"]) == (3, 7, 2)
    assert params["sweep"] == {"concept": "tom", "gate_bias": BIASES, "gate_temperature": None}
    assert acme.http.get("/v1/generations").json()["data"] == [job]
    assert acme.http.get(f"/v1/jobs/{job['id']}").json()["params"] == params


def test_each_image_says_at_which_value_it_was_drawn_and_all_have_one_seed(acme):
    acme.trained()
    job = acme.sweep(TOM, seed=7)
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    images = acme.http.get(f"/v1/generations/{job['id']}").json()["result"]["images"]
    assert [(image["gate_bias"], image["gate_temperature"], image["seed"]) for image in images] == [
        (bias, None, 7) for bias in BIASES
    ]
    assert len({image["file_id"] for image in images}) == 3
    assert acme.http.get(images[0]["content_url"]).status_code == 200


def test_a_generation_that_sweeps_nothing_says_so(acme):
    job = acme.generate()
    assert job["params"]["sweep"] is None
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    (image,) = acme.http.get(f"/v1/generations/{job['id']}").json()["result"]["images"]
    assert (image["gate_bias"], image["gate_temperature"]) == (None, None)


def test_the_other_dial_and_a_renamed_concept_are_swept_too(settled):
    listed = [{"name": "tom", "as": "him", "gate_bias": 0.6}]
    job = settled.sweep({"concept": "him", "gate_temperature": [0.1, 1]}, "<him> with <ann>", concepts=listed)
    assert job["params"]["sweep"] == {"concept": "him", "gate_bias": None, "gate_temperature": [0.1, 1.0]}
    uses = {use["as"]: use["gate_bias"] for use in job["params"]["concepts"]}
    assert uses == {"him": 0.6, "ann": 0.65}


def test_a_sweep_waits_in_the_queue_like_as_many_pictures(settled):
    swept, drawn = settled.sweep(TOM, steps=2), settled.generate(n=3, steps=2)

    def place(job):
        sql = "SELECT pool || ' ' || lane || ' ' || cost_ms FROM jobs WHERE id = :id"
        return settled.deployment.scalar(sql, id=job["id"])

    assert place(swept) == place(drawn)


def test_a_sweep_is_canceled_as_any_generation(settled):
    job = settled.sweep(TOM)
    assert settled.http.post(f"/v1/generations/{job['id']}/cancel").json()["state"] == "canceled"


def test_a_sweep_under_one_idempotency_key_is_made_once(settled):
    body = {"prompt": BEACH, "sweep": TOM}
    one, other = (
        settled.http.post("/v1/generations/sweep", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert one.json()["id"] == other.json()["id"]
    assert other.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("sweep", "change", "code", "param"),
    [
        ({"concept": "ann"}, {}, "concept-unused", "sweep.concept"),
        ({"concept": "him"}, {"prompt": "<him>"}, "unknown-placeholder", "prompt"),
        ({}, {"prompt": "<him>", "concepts": [{"name": "tom", "as": "him"}]}, "concept-unused", "sweep.concept"),
        ({}, {"prompt": "a cat"}, "concept-unused", "sweep.concept"),
        ({}, {"concepts": [{"name": "tom", "gate_bias": 0.5}]}, "validation", "concepts.0.gate_bias"),
        ({"concept": "<tom>"}, {}, "validation", "sweep.concept"),
        ({"gate_bias": [0.4, 1.1]}, {}, "validation", "sweep.gate_bias.1"),
        ({"gate_bias": [0.4, -0.1]}, {}, "validation", "sweep.gate_bias.1"),
        ({"gate_bias": None, "gate_temperature": [0, 0.5]}, {}, "validation", "sweep.gate_temperature.0"),
        ({"gate_bias": [0.4, 0.5, 0.4]}, {}, "validation", "sweep.gate_bias"),
        ({"gate_bias": [0.4]}, {}, "validation", "sweep.gate_bias"),
        ({"gate_bias": [value / 17 for value in range(17)]}, {}, "validation", "sweep.gate_bias"),
        ({"gate_bias": 0.4}, {}, "validation", "sweep.gate_bias"),
        ({"gate_bias": None}, {}, "validation", "sweep"),
        ({"gate_temperature": [0.1, 0.2]}, {}, "validation", "sweep"),
        ({"guidance": [1, 2]}, {}, "validation", "sweep.guidance"),
        ({}, {"n": 2}, "validation", "n"),
        ({}, {"sweep": None}, "validation", "sweep"),
        ({}, {"size": "65x64"}, "size-unsupported", "size"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_its_code_and_leaves_nothing(settled, sweep, change, code, param):
    before = settled.jobs()
    body = {"prompt": BEACH, "sweep": TOM | sweep} | change
    response = settled.http.post("/v1/generations/sweep", json=body)
    assert refused(response, 422, code)["error"]["param"] == param
    assert response.headers["x-should-retry"] == "false"
    assert settled.jobs() == before


def test_a_generation_takes_no_sweep_outside_of_its_route(settled):
    body = {"prompt": BEACH, "sweep": TOM}
    refused(settled.http.post("/v1/generations", json=body), 422, "validation")
