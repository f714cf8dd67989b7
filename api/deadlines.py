"""``Cancel-After``: how long after its acceptance a job is still wanted.

A duration, not a date, as Replicate's clients send it: the database's clock counts it from the acceptance on, so that
a client whose clock is wrong loses nothing.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header

from core.errors import Invalid

_UNITS = ("d", "days"), ("h", "hours"), ("m", "minutes"), ("s", "seconds")
_FORM = re.compile("".join(rf"(?:(?P<{name}>\d{{1,9}}){unit})?" for unit, name in _UNITS))
_LEAST, _MOST = timedelta(seconds=1), timedelta(days=30)


def parse_cancel_after(value: str | None) -> timedelta | None:
    """The duration, such as ``90``, ``90s``, ``5m`` or ``1h30m``; raises Invalid."""
    if value is None:
        return None
    text = value.strip()
    found = _FORM.fullmatch(f"{text}s" if text.isdecimal() else text)
    given = {name: int(number) for name, number in (found.groupdict() if found else {}).items() if number}
    wanted = timedelta(**given) if given else timedelta(0)
    if not _LEAST <= wanted <= _MOST:
        detail = f"Cancel-After is a duration from 1s to 30d, such as 90, 90s, 5m or 1h30m, not {value!r}."
        raise Invalid(detail, param="Cancel-After")
    return wanted


def _cancel_after(
    cancel_after: Annotated[
        str | None,
        Header(
            alias="Cancel-After",
            description="How long the job is wanted from now on: seconds, or a duration such as `90s`, `5m`, `1h30m`. "
            "If it waits by then it expires, if it runs it is canceled.",
            examples=["5m"],
        ),
    ] = None,
) -> timedelta | None:
    return parse_cancel_after(cancel_after)


CancelAfter = Annotated[timedelta | None, Depends(_cancel_after)]
"""How long the job of a request is wanted; None for ever."""
