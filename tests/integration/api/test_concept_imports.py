"""Concept files from elsewhere: uploaded, checked, and made versions of concepts."""

from __future__ import annotations

import pytest

from core.concepts.header import MAX_BYTES, MEDIA_TYPE
from tests.concept_files import SPACE, concept_file
from tests.serving import Deployment, Tenant, created, refused

ELSEWHERE = SPACE.model_copy(update={"encoder": "0" * 64})


@pytest.fixture(scope="module", autouse=True)
def known_space(deployment: Deployment) -> None:
    """One base model says what fits it; "storybook" and "other" do not."""
    deployment.register("spaced", concept_space=SPACE)


def uploaded(tenant: Tenant, data: bytes | None = None) -> str:
    response = tenant.http.post(
        "/v1/files",
        files={"file": ("tom-v1.safetensors", data or concept_file())},
        data={"purpose": "concept_upload"},
    )
    return str(created(response)["id"])


def import_it(tenant: Tenant, file: str, concept: str = "tom", *, key: str | None = None, **body: str):
    headers = {} if key is None else {"Idempotency-Key": key}
    return tenant.http.post("/v1/concepts/import", json={"file": file, "concept": concept} | body, headers=headers)


def test_an_uploaded_concept_file_keeps_its_bytes_and_can_be_deleted(acme):
    data = concept_file()
    file = acme.http.get(f"/v1/files/{uploaded(acme, data)}").json()
    assert (file["purpose"], file["media_type"], file["name"]) == ("concept_upload", MEDIA_TYPE, "tom-v1.safetensors")
    assert acme.http.get(file["content_url"]).content == data
    assert acme.http.delete(f"/v1/files/{file['id']}").status_code == 204


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x80\x04\x95" + bytes(64), 422, "concept-unreadable"),
        (concept_file()[:-1], 422, "concept-unreadable"),
        (concept_file(format="lockstep-concept/9"), 422, "concept-unreadable"),
        (bytes(MAX_BYTES + 1), 413, "too-large"),
    ],
    ids=["pickle", "cut-off", "format", "large"],
)
def test_what_is_no_concept_file_is_refused_and_nothing_is_kept(acme, data, status, code):
    response = acme.http.post("/v1/files", files={"file": ("tom", data)}, data={"purpose": "concept_upload"})
    assert refused(response, status, code)["error"]["param"] == "file"
    assert acme.http.get("/v1/files").json()["data"] == []


def test_what_a_file_is_for_is_picture_or_concept_upload(acme):
    response = acme.http.post("/v1/files", files={"file": ("tom", concept_file())}, data={"purpose": "concept"})
    assert refused(response, 422, "validation")["error"]["param"] == "purpose"
    response = acme.http.post("/v1/files", files={"file": ("tom", concept_file())})
    refused(response, 422, "picture-unreadable")


def test_an_import_makes_a_concept_of_the_model_that_the_file_fits(acme):
    file = uploaded(acme)
    response = import_it(acme, file)
    concept = created(response)
    expected = {"name": "tom", "superclass": "cat", "base_model": "spaced", "latest_version": 1}
    assert concept.items() >= expected.items()
    (version,) = concept["versions"]
    shown = {name: version[name] for name in ("version", "key_lock", "metrics", "job_id", "file_id")}
    assert shown == {"version": 1, "key_lock": "local", "metrics": {"loss": 0.25}, "job_id": None, "file_id": file}
    assert acme.http.get(response.headers["location"]).json() == concept


def test_what_is_imported_can_be_drawn_and_downloaded_as_it_came(acme):
    data = concept_file()
    version = created(import_it(acme, uploaded(acme, data)))["versions"][0]
    content = acme.http.get(version["content_url"])
    assert (content.content, content.headers["content-type"]) == (data, MEDIA_TYPE)
    assert content.headers["content-disposition"].endswith("''tom-v1.safetensors")
    job = acme.generate("<tom> on the beach")
    (use,) = job["params"]["concepts"]
    assert (use["version"], use["key_lock"]) == (1, "local")
    assert acme.deployment.claim(job["id"]).params.concepts[0].file_id == version["file_id"]


def test_an_imported_concept_brings_its_recommended_bias_along(acme):
    version = created(import_it(acme, uploaded(acme, concept_file(gate_bias="0.45"))))["versions"][0]
    assert version["gate_bias"] == 0.45
    (use,) = acme.generate("<tom> on the beach")["params"]["concepts"]
    assert use["gate_bias"] == 0.45


def test_a_name_that_exists_gets_its_next_version(acme):
    concept_id = acme.trained(base_model="spaced")
    concept = created(import_it(acme, uploaded(acme), "tom"))
    assert (concept["id"], [made["version"] for made in concept["versions"]]) == (concept_id, [2, 1])
    again = created(import_it(acme, uploaded(acme), concept_id))
    assert again["latest_version"] == 3
    job = acme.train()
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    assert acme.http.get("/v1/concepts/tom").json()["latest_version"] == 4


def test_an_import_under_an_unknown_id_is_not_found(acme):
    assert refused(import_it(acme, uploaded(acme), "cpt_gone"), 404, "not-found")["error"]["param"] == "concept"


def test_a_file_that_fits_no_model_is_refused(acme):
    stranger = uploaded(acme, concept_file(ELSEWHERE, base_model="sd-custom"))
    assert refused(import_it(acme, stranger), 422, "concept-model-unknown")["error"]["param"] == "file"
    assert acme.http.get("/v1/concepts").json()["data"] == []
    assert acme.http.get(f"/v1/files/{stranger}").json()["purpose"] == "concept_upload"


def test_a_model_that_says_nothing_of_concepts_is_taken_at_its_name(acme):
    file = uploaded(acme, concept_file(ELSEWHERE, base_model="other"))
    assert created(import_it(acme, file))["base_model"] == "other"


def test_a_file_that_does_not_fit_the_wanted_model_or_the_concept_s_is_refused(acme):
    stranger = uploaded(acme, concept_file(ELSEWHERE))
    problem = refused(import_it(acme, stranger, base_model="spaced"), 409, "concept-model-mismatch")
    assert problem["error"]["param"] == "file"
    assert "text encoder" in problem["detail"]
    acme.http.post("/v1/concepts", json={"name": "tim", "superclass": "cat", "base_model": "spaced"})
    refused(import_it(acme, stranger, "tim"), 409, "concept-model-mismatch")
    problem = refused(import_it(acme, stranger, "tim", base_model="other"), 409, "concept-model-mismatch")
    assert problem["error"]["param"] == "base_model"
    refused(import_it(acme, stranger, base_model="dall-e"), 422, "model-unknown")


def test_a_file_of_another_superclass_is_no_version_of_the_concept(acme):
    acme.http.post("/v1/concepts", json={"name": "rex", "superclass": "dog", "base_model": "spaced"})
    assert refused(import_it(acme, uploaded(acme), "rex"), 409, "conflict")["error"]["param"] == "file"


def test_a_file_becomes_a_version_once_and_can_then_not_be_deleted(acme):
    file = uploaded(acme)
    created(import_it(acme, file))
    assert refused(import_it(acme, file), 409, "conflict")["error"]["param"] == "file"
    refused(acme.http.delete(f"/v1/files/{file}"), 409, "conflict")
    assert acme.http.get("/v1/concepts/tom").json()["latest_version"] == 1


def test_a_picture_cannot_be_imported_nor_a_concept_file_be_learned_from(acme):
    picture, file = acme.upload()["id"], uploaded(acme)
    assert refused(import_it(acme, picture), 422, "validation")["error"]["param"] == "file"
    body = {"concept": "tom", "superclass": "cat", "images": [file]}
    assert refused(acme.http.post("/v1/trainings", json=body), 422, "validation")["error"]["param"] == "images.0"


def test_an_import_is_carried_out_once_under_its_key(acme):
    file = uploaded(acme)
    first, second = import_it(acme, file, key="k"), import_it(acme, file, key="k")
    assert (first.status_code, second.status_code) == (201, 201)
    assert (second.json(), second.headers["location"]) == (first.json(), first.headers["location"])
    assert second.headers["idempotent-replayed"] == "true"
    refused(import_it(acme, file, "tim", key="k"), 422, "idempotency-key-reused")


def test_what_belongs_to_another_tenant_cannot_be_imported(acme, rival):
    assert refused(import_it(rival, uploaded(acme)), 404, "not-found")["error"]["param"] == "file"


def test_importing_needs_the_scope_of_training(acme):
    with acme.client(frozenset({"read", "generate"})) as reader:
        response = reader.post("/v1/concepts/import", json={"file": uploaded(acme), "concept": "tom"})
        refused(response, 403, "forbidden")
