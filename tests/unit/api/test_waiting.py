from __future__ import annotations

from datetime import timedelta

import pytest

from api.waiting import applied, parse_prefer


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("wait=0", 0),
        ("wait", 55),
        ("wait=60", 55),
        ("wait=99999999999999", 55),
        ('wait="7"', 7),
        ("WAIT=7", 7),
        ("wait = 7", 7),
        ("respond-async, wait=7", 7),
        ("respond-async; wait=7", 7),
        ("wait=soon", 55),
        ("", None),
        ("respond-async", None),
        ("waiting=5", None),
        ("return=minimal", None),
    ],
)
def test_how_long_a_client_would_wait(prefer, seconds):
    assert parse_prefer(prefer) == (None if seconds is None else timedelta(seconds=seconds))


def test_what_was_granted_is_told():
    assert applied(timedelta(seconds=55)) == {"Preference-Applied": "wait=55"}
