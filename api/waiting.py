"""``Prefer: wait=N`` (RFC 7240): an answer that is held back until the job has ended, or the time is up."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header

from core.db.transactions import Transactions
from core.jobs.models import Job
from core.jobs.reading import wait_for_end

_LONGEST = timedelta(seconds=55)  # proxies and clients give up after a minute
_LONGEST_REST = timedelta(milliseconds=200)


def _wait(
    prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description="`wait=N`: answer once the job has ended, or after N seconds (55 at most).",
            examples=["wait=30"],
        ),
    ] = None,
) -> timedelta | None:
    return parse_prefer(prefer or "")


Wait = Annotated[timedelta | None, Depends(_wait)]
"""How long the client would have its answer held back."""


def parse_prefer(prefer: str) -> timedelta | None:
    """How long to wait; None where waiting is not preferred. ``wait`` without a number waits the longest."""
    for preference in re.split(r"[,;]", prefer):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            return min(timedelta(seconds=int(seconds[:6])), _LONGEST) if seconds.isdecimal() else _LONGEST
    return None


def applied(wait: timedelta) -> dict[str, str]:
    """The header that tells how long was granted."""
    return {"Preference-Applied": f"wait={int(wait.total_seconds())}"}


async def hold(transactions: Transactions, job_id: str, wait: timedelta) -> Job:
    """The job when it has ended or the time is up."""
    return await wait_for_end(transactions, job_id, at_most=wait, longest_rest=_LONGEST_REST, now=time.monotonic)
