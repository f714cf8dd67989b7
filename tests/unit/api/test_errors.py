"""Every error of the domain has a status, a code and a title; no two mean the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from api.errors import (
    HTTP_CODES,
    INTERNAL,
    JOB_CREATING,
    OUTCOME_UNKNOWN,
    STATUS,
    UNAVAILABLE,
    is_final,
    problem_response,
    trouble_of,
)
from api.routes import distillations, generations, jobs, trainings
from api.schemas.problems import Problem
from core import errors
from core.errors import LockstepError
from tests.architecture.source import ROOT


def kinds(error: type[LockstepError] = LockstepError) -> Iterator[type[LockstepError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds(kind)


KINDS = sorted(set(kinds()), key=lambda kind: kind.code)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_error_is_told_as_a_problem(kind):
    trouble = trouble_of(kind("It went wrong.", param="field"))
    problem = Problem.model_validate(trouble.body("req_1"))
    assert (problem.status, problem.code, problem.error.code) == (STATUS[kind], kind.code, kind.code)
    assert (problem.detail, problem.error.message, problem.error.param) == ("It went wrong.", "It went wrong.", "field")
    assert problem.instance == "urn:request:req_1"
    assert problem.title == kind.title()


def test_the_map_has_every_error_and_nothing_else():
    assert set(STATUS) == set(KINDS)


def test_a_code_means_one_thing():
    codes = [kind.code for kind in KINDS]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_only_what_stays_as_it_is_may_be_kept(kind):
    assert is_final(kind("")) == (400 <= STATUS[kind] < 500 and STATUS[kind] not in {401, 402, 409, 429})


@pytest.mark.parametrize(
    ("trouble", "repeat"),
    [
        (trouble_of(errors.NotFound("")), "false"),
        (trouble_of(errors.ConceptNotReady("")), "false"),
        (trouble_of(errors.IdempotencyInProgress("")), "true"),
        (trouble_of(errors.StorageUnavailable("")), "true"),
        (UNAVAILABLE, "true"),
        (OUTCOME_UNKNOWN, "false"),
        (INTERNAL, "false"),
    ],
)
def test_a_request_for_a_job_is_repeated_only_where_no_job_can_exist_twice(trouble, repeat):
    for method, path, expected in (
        ("POST", "/v1/generations", repeat),
        ("POST", "/v1/files", None),
        ("GET", "/v1/generations", None),
    ):
        response = problem_response(
            trouble.body("req_1"), method=method, path=path, job_may_exist=trouble.job_may_exist
        )
        assert response.headers.get("x-should-retry") == expected


def test_pauses_before_a_repetition_are_whole_seconds_and_short_enough_to_be_taken():
    for trouble in (
        UNAVAILABLE,
        trouble_of(errors.StorageUnavailable("")),
        trouble_of(errors.IdempotencyInProgress("")),
    ):
        response = problem_response(trouble.body("req_1"), method="POST", path="/v1/generations")
        assert 1 <= int(response.headers["retry-after"]) <= 5


def test_the_routes_that_make_jobs_are_known():
    routes = [route for module in (trainings, distillations, generations, jobs) for route in module.router.routes]
    making = {route.path for route in routes if isinstance(route, APIRoute) and route.status_code == 201}
    assert making | {"/v1/jobs/retry"} == JOB_CREATING  # that one makes many, and tells how many


@pytest.mark.parametrize("code", ["invalid-request", "internal", "unavailable", *HTTP_CODES.values()])
def test_what_goes_wrong_outside_of_the_domain_is_documented_too(code):
    assert f"| `{code}` |" in (ROOT / "docs" / "errors.md").read_text()
