from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from lockstep import Conflict, ConnectionFailed, Invalid, RetryPolicy, ServerError
from tests.unit.sdk.server import ScriptedServer

OK = {"ok": True}


def pause(response: httpx.Response | None, failures: int = 1, *, random: float = 1.0) -> float | None:
    return RetryPolicy(retries=3).pause(failures, response, random=lambda: random)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_or_away_is_asked_again(status: int):
    assert pause(httpx.Response(status)) is not None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_another_try_cannot_change_is_not_tried_again(status: int):
    assert pause(httpx.Response(status)) is None


def test_pauses_double_up_to_the_longest():
    pauses = [RetryPolicy(retries=9).pause(failures, None, random=lambda: 1.0) for failures in range(1, 8)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_jitter_shortens_a_pause_by_half_at_most():
    assert pause(None, random=0.0) == 0.25


def test_the_server_word_on_retrying_counts_more_than_its_status():
    assert pause(httpx.Response(503, headers={"x-should-retry": "false"})) is None
    assert pause(httpx.Response(409, headers={"x-should-retry": "true"})) is not None


def test_the_pause_that_the_server_asks_for_is_kept():
    assert pause(httpx.Response(429, headers={"retry-after": "7"})) == 7.0


def test_a_pause_may_be_asked_for_as_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert pause(httpx.Response(503, headers={"retry-after": at})) == pytest.approx(20, abs=2)


def test_an_unreadable_retry_after_is_ignored():
    assert pause(httpx.Response(503, headers={"retry-after": "soon"})) == 0.5


def test_a_server_that_asks_for_a_long_pause_is_not_waited_for():
    assert pause(httpx.Response(503, headers={"retry-after": "3600"})) is None


def test_a_call_succeeds_when_a_later_try_does():
    server = ScriptedServer(httpx.ConnectError("refused"), httpx.Response(502), httpx.Response(200, json=OK))
    assert server.transport().get("/v1/jobs").json() == OK
    assert server.pauses == [0.5, 1.0]


def test_every_try_of_a_call_carries_the_same_idempotency_key():
    server = ScriptedServer(httpx.ReadTimeout("slow"), httpx.Response(503), httpx.Response(201, json=OK))
    server.transport().post("/v1/generations", {"prompt": "a cat"})
    first, *others = server.header("idempotency-key")
    assert first
    assert others == [first, first]


def test_two_calls_have_two_idempotency_keys():
    server = ScriptedServer(httpx.Response(201, json=OK), httpx.Response(201, json=OK))
    transport = server.transport()
    transport.post("/v1/generations", {"prompt": "a cat"})
    transport.post("/v1/generations", {"prompt": "a cat"})
    assert len(set(server.header("idempotency-key"))) == 2


def test_the_callers_idempotency_key_is_used():
    server = ScriptedServer(httpx.Response(201, json=OK))
    server.transport().post("/v1/trainings", {}, idempotency_key="order-17")
    assert server.header("idempotency-key") == ["order-17"]


def test_an_upload_is_sent_whole_again():
    server = ScriptedServer(httpx.ReadError("reset"), httpx.Response(201, json=OK))
    server.transport().post("/v1/files", file=("cat.png", b"pixels"))
    assert all(b"pixels" in request.read() for request in server.requests)


def test_what_must_not_be_doubled_is_tried_once():
    server = ScriptedServer(httpx.ReadError("reset"))
    with pytest.raises(ConnectionFailed):
        server.transport().post("/v1/webhook_endpoints", {}, repeat=False)
    assert len(server.requests) == 1


def test_a_server_that_stays_away_is_given_up():
    server = ScriptedServer(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(ConnectionFailed, match="refused"):
        server.transport().get("/v1/jobs")
    assert len(server.requests) == 4


def test_a_server_that_stays_down_is_named_by_its_last_answer():
    server = ScriptedServer(*[httpx.Response(503)] * 4)
    with pytest.raises(ServerError) as caught:
        server.transport().get("/v1/jobs")
    assert (caught.value.status, caught.value.code) == (503, "http-503")


def test_an_error_carries_what_the_server_says_of_it():
    problem = {
        "title": "Not a picture",
        "detail": "cat.txt is not a picture.",
        "code": "picture-unreadable",
        "error": {"message": "cat.txt is not a picture.", "param": "file"},
    }
    server = ScriptedServer(httpx.Response(422, json=problem, headers={"x-request-id": "req_1"}))
    with pytest.raises(Invalid) as caught:
        server.transport().post("/v1/files", file=("cat.txt", b"meow"))
    error = caught.value
    assert (error.code, error.detail, error.param) == ("picture-unreadable", problem["detail"], "file")
    assert error.request_id == "req_1"
    assert len(server.requests) == 1


def test_a_key_still_in_progress_is_waited_for():
    busy = httpx.Response(409, headers={"x-should-retry": "true", "retry-after": "1"})
    server = ScriptedServer(busy, httpx.Response(201, json=OK))
    server.transport().post("/v1/generations", {})
    assert server.pauses == [1.0]


def test_a_conflict_is_raised_at_once():
    server = ScriptedServer(httpx.Response(409, json={"code": "not-cancelable", "detail": "It has ended."}))
    with pytest.raises(Conflict, match=r"It has ended\. \(not-cancelable, HTTP 409\)"):
        server.transport().post("/v1/jobs/job_1/cancel")
