"""How events are written to a stream, and where a broken one goes on."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from api.standing import Standing
from api.streaming import sequence_after, stream
from core.errors import Unauthenticated
from core.jobs.models import Event
from core.tenants.authentication import Caller

CALLER = Caller("ten_1", "key_1", frozenset({"read"}))
JOB = "job_01kaj0c5pmq2v8y4dn6rx3zwte"


def event(sequence):
    return Event(
        id=f"evt_{sequence}",
        type="generation.progress",
        sequence=sequence,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        data={"text": "über\nzwei Zeilen"},
    )


async def written(*looks, holds=True):
    async def each():
        for look in looks:
            yield look

    async def look_up():
        if not holds:
            raise Unauthenticated("revoked")
        return CALLER

    standing = Standing(CALLER, look_up, now=itertools.count(step=100).__next__)
    parts = [chunk async for chunk in stream(each(), standing).body_iterator]
    return "".join(part.decode() for part in parts if isinstance(part, bytes))


async def test_an_event_is_its_type_its_body_on_one_line_and_its_sequence():
    (text,) = [await written([event(7)])]
    kind, data, number, *rest = text.split("\n")
    assert (kind, number, rest) == ("event: generation.progress", "id: 7", ["", ""])
    assert data.startswith('data: {"id":"evt_7","object":"event"')
    assert "über\\nzwei Zeilen" in data


async def test_nothing_is_told_to_somebody_who_may_not_ask_any_more():
    assert await written([event(1)], [event(2)], holds=False) == ""


async def test_silence_is_broken_by_pings_that_have_no_id():
    assert await written(*[[]] * 49) == ""
    assert await written(*[[]] * 50) == ": ping\n\n"
    assert (await written(*[[]] * 49, [event(1)], *[[]] * 49)).count(": ping") == 0


@pytest.mark.parametrize(
    ("last_event_id", "sequence"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("7", 7),
        ("evt_01kaj0c5pmq2v8y4dn6rx3zwte000007", 7),
        ("evt_01kaj0c5pmq2v8y4dn6rx3zwte1000000", 1_000_000),
        ("evt_01kaj0c5pmq2v8y4dn6rx3zwtf000007", 0),  # of another job
        ("-7", 0),
        ("7.5", 0),
        ("²", 0),
        ("9" * 30, 0),
    ],
)
def test_a_stream_goes_on_after_a_sequence_or_an_events_id_and_else_begins_anew(last_event_id, sequence):
    assert sequence_after(last_event_id, JOB) == sequence
