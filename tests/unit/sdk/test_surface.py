from __future__ import annotations

import json
from types import ModuleType

import httpx
import pytest

import lockstep
from lockstep import Lockstep, LockstepError, models
from lockstep.errors import error_from


def test_the_public_surface_is_what_all_names():
    public = {name for name, value in vars(lockstep).items() if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(lockstep, name), ModuleType)}
    assert public - (modules - {"webhooks"}) == set(lockstep.__all__)


def test_every_error_is_public_and_of_one_family():
    errors = {name: value for name, value in vars(lockstep.errors).items() if isinstance(value, type)}
    ours = {name for name, value in errors.items() if issubclass(value, LockstepError)}
    assert ours <= set(lockstep.__all__)


def test_every_status_of_an_error_has_a_kind():
    kinds = {
        status: type(error_from(httpx.Response(status))).__name__ for status in (401, 404, 409, 422, 429, 500, 599)
    }
    assert kinds == {
        401: "Unauthenticated",
        404: "NotFound",
        409: "Conflict",
        422: "Invalid",
        429: "RateLimited",
        500: "ServerError",
        599: "ServerError",
    }


def test_a_client_needs_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOCKSTEP_API_KEY", raising=False)
    with pytest.raises(LockstepError, match="LOCKSTEP_API_KEY"):
        Lockstep(base_url="http://server")


def test_a_client_needs_an_address_with_a_scheme():
    with pytest.raises(LockstepError, match="localhost:8000"):
        Lockstep(base_url="localhost:8000", api_key="lk_test_x")


def test_the_environment_says_where_and_who(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCKSTEP_URL", "https://draw.example")
    monkeypatch.setenv("LOCKSTEP_API_KEY", "lk_test_x")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": [], "has_more": False, "last_id": None})

    with Lockstep(transport=httpx.MockTransport(answer)) as client:
        assert list(client.models.list()) == []
    assert str(seen[0].url) == "https://draw.example/v1/models"
    assert seen[0].headers["authorization"] == "Bearer lk_test_x"


def test_iterating_over_a_page_goes_on_through_the_pages_that_follow():
    def answer(request: httpx.Request) -> httpx.Response:
        after = int(request.url.params.get("after", "mdl_0").removeprefix("mdl_"))
        data = [{"id": f"mdl_{after + 1}", "name": "m", "kind": "base", "family": "f"}]
        return httpx.Response(200, json={"data": data, "has_more": after < 2, "last_id": f"mdl_{after + 1}"})

    with Lockstep(base_url="http://server", api_key="k", transport=httpx.MockTransport(answer)) as client:
        page = client.models.list()
        assert [model.id for model in page] == ["mdl_1", "mdl_2", "mdl_3"]
        assert [model.id for model in page.data] == ["mdl_1"]


def test_a_sweep_says_which_dial_of_which_concept_and_leaves_the_rest_to_the_server():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        job = {"id": "job_1", "kind": "generation", "state": "queued", "attempt": 0, "created_at": "2026-01-01T00:00Z"}
        return httpx.Response(201, json=job)

    with Lockstep(base_url="http://server", api_key="k", transport=httpx.MockTransport(answer)) as client:
        client.generations.sweep(
            prompt="<tom>", concept="tom", gate_bias=(0.4, 0.6), seed=7, concepts=[{"name": "tom"}]
        )
        client.generations.sweep(prompt="<tom>", concept="tom", gate_temperature=(0.1, 0.2), model=None)
    assert {request.url.path for request in seen} == {"/v1/generations/sweep"}
    assert [json.loads(request.content) for request in seen] == [
        {
            "prompt": "<tom>",
            "seed": 7,
            "concepts": [{"name": "tom"}],
            "sweep": {"concept": "tom", "gate_bias": [0.4, 0.6]},
        },
        {"prompt": "<tom>", "sweep": {"concept": "tom", "gate_temperature": [0.1, 0.2]}},
    ]


def test_pictures_are_asked_for_again_by_their_job_or_one_by_its_file():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        job = {"id": "job_2", "kind": "generation", "state": "queued", "attempt": 0, "created_at": "2026-01-01T00:00Z"}
        return httpx.Response(201, json={**job, "reproduces": "job_1"})

    with Lockstep(base_url="http://server", api_key="k", transport=httpx.MockTransport(answer)) as client:
        jobs = [client.generations.reproduce("job_1"), client.generations.reproduce_picture("file_1", wait=5)]
    assert [job.reproduces for job in jobs] == ["job_1", "job_1"]
    assert [(request.url.path, json.loads(request.content)) for request in seen] == [
        ("/v1/generations/job_1/reproduce", {}),
        ("/v1/generations/reproduce", {"file": "file_1"}),
    ]
    assert seen[1].headers["prefer"] == "wait=5"


def test_a_generation_tells_pictures_to_see_from_those_withheld():
    shown = {"file_id": "file_1", "seed": 1, "width": 64, "height": 64, "safety": {"score": 0.1, "unsafe": False}}
    withheld = {
        "code": "safety-blocked",
        "seed": 2,
        "width": 64,
        "height": 64,
        "safety": {"score": 0.9, "unsafe": True},
    }
    result = models.GenerationResult.model_validate({"images": [shown], "withheld": [withheld]})
    assert [image.file_id for image in result.images] == ["file_1"]
    assert [(image.code, image.seed, image.safety) for image in result.withheld] == [
        ("safety-blocked", 2, models.SafetyVerdict(score=0.9, unsafe=True))
    ]
    assert models.GenerationResult.model_validate({"images": [shown]}).withheld == ()  # an older server's


def test_fields_that_this_version_does_not_know_are_kept():
    model = models.Model.model_validate({"id": "mdl_1", "name": "m", "kind": "base", "family": "f", "new": 1})
    assert (model.model_extra or {})["new"] == 1
