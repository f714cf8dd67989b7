from __future__ import annotations

import httpx
import pytest

from lockstep import ConnectionFailed, NotFound, WaitTimedOut, sse
from lockstep.following import follow
from lockstep.models import Event
from tests.unit.sdk.server import ScriptedServer, broken_stream, event_text, stream, ticking

LAST = "training.succeeded"


def events_from(server: ScriptedServer, *, after: str | None = None, has_ended: bool = False) -> list[Event]:
    followed = follow(server.transport(), "/v1/jobs/j/events", after=after, timeout=None, has_ended=lambda: has_ended)
    return list(followed)


def test_events_are_yielded_up_to_the_one_that_ends_the_job():
    server = ScriptedServer(stream(event_text(1), ": ping\n\n", event_text(2, LAST), event_text(3)))
    assert [event.id for event in events_from(server)] == ["evt_1", "evt_2"]


def test_a_broken_stream_is_resumed_after_the_last_event_that_came():
    server = ScriptedServer(broken_stream(event_text(1), event_text(2), "id: evt_3\nda"), stream(event_text(3, LAST)))
    assert [event.id for event in events_from(server)] == ["evt_1", "evt_2", "evt_3"]
    assert server.header("last-event-id") == [None, "evt_2"]


def test_a_stream_that_the_server_closes_early_is_resumed():
    server = ScriptedServer(stream(event_text(1)), httpx.Response(503), stream(event_text(2, LAST)))
    assert [event.id for event in events_from(server)] == ["evt_1", "evt_2"]


def test_following_starts_where_the_caller_says():
    server = ScriptedServer(stream(event_text(8, LAST)))
    events_from(server, after="evt_7")
    assert server.header("last-event-id") == ["evt_7"]


def test_nothing_follows_the_last_event():
    server = ScriptedServer(stream())
    assert events_from(server, after="evt_9", has_ended=True) == []


def test_progress_renews_the_patience_with_a_bad_connection():
    server = ScriptedServer(*[broken_stream(event_text(number)) for number in range(1, 9)], stream(event_text(9, LAST)))
    assert len(events_from(server)) == 9


def test_a_stream_that_never_comes_back_is_given_up():
    server = ScriptedServer(broken_stream(event_text(1)), *[httpx.ConnectError("refused")] * 4)
    with pytest.raises(ConnectionFailed):
        events_from(server)


def test_a_job_of_nobody_is_an_error_at_once():
    server = ScriptedServer(httpx.Response(404, json={"code": "not-found", "detail": "No job j."}))
    with pytest.raises(NotFound):
        events_from(server)
    assert server.pauses == []


def test_waiting_ends_at_the_deadline_though_pings_arrive():
    server = ScriptedServer(stream(": ping\n\n"))
    clock = ticking([0, 0, 10, 10, 10, 10])
    with pytest.raises(WaitTimedOut):
        list(follow(server.transport(), "/e", after=None, timeout=5, has_ended=lambda: False, clock=clock))


def parsed(*chunks: str) -> list[tuple[str, str, str | None]]:
    return [(event.type, event.data, event.id) for event in sse.parse(chunks)]


def test_a_stream_may_be_cut_anywhere():
    text = "id: 1\r\nevent: a\r\ndata: x\r\ndata: y\r\n\r\ndata: z\n\n"
    assert parsed(*text) == parsed(text) == [("a", "x\ny", "1"), ("message", "z", "1")]


def test_characters_that_only_python_takes_for_line_ends_stay_in_the_data():
    assert parsed("data: a\u2028b\x85c\n\n") == [("message", "a\u2028b\x85c", None)]


def test_comments_and_an_unfinished_event_are_dropped():
    assert parsed(": hello\n\nid: 1\ndata: half") == []
