from __future__ import annotations

from datetime import timedelta

import pytest

from api.deadlines import parse_cancel_after
from core.errors import Invalid


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), (" 1h30m ", 5400), ("2d", 172800), ("1d2h3m4s", 93784), ("30d", 2592000)],
)
def test_a_duration_is_read_with_and_without_units(value, seconds):
    assert parse_cancel_after(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "0", "0s", "-5", "1.5m", "5 m", "31d", "30m1h", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 10, "s"]
)
def test_anything_else_is_refused_by_the_name_of_the_header(value):
    with pytest.raises(Invalid) as refused:
        parse_cancel_after(value)
    assert refused.value.param == "Cancel-After"


def test_without_the_header_there_is_no_deadline():
    assert parse_cancel_after(None) is None
