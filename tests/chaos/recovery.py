"""How soon a system works again after a fault, read from what it left behind."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.chaos.faults import Done
from tests.chaos.plan import Kind

_BLAMED_SECONDS = 20.0  # after a fault, in which attempts that end were ended by it


@dataclass(frozen=True)
class Try:
    """One attempt at a job, in seconds of this machine's clock."""

    job_id: str
    started: float
    ended: float
    outcome: str


@dataclass
class Recovery:
    """Seconds after each fault of one kind, counted from when it was over, or began if it left nothing to end."""

    accepting: list[float] = field(default_factory=list)  # until a job was asked for and promised
    working: list[float] = field(default_factory=list)  # until a job was claimed, done, stored and ended
    back: list[float] = field(default_factory=list)  # from its beginning until all that it took was claimed again
    notes: list[str] = field(default_factory=list)


def recoveries(
    faults: Iterable[Done], accepted: Sequence[tuple[float, float]], tries: Sequence[Try]
) -> dict[Kind, Recovery]:
    """What followed each fault, by kind."""
    by_kind: defaultdict[Kind, Recovery] = defaultdict(Recovery)
    promises = _Firsts(accepted)
    successes = _Firsts([(tried.started, tried.ended) for tried in tries if tried.outcome == "succeeded"])
    for fault in faults:
        found = by_kind[fault.kind]
        found.notes.append(fault.note)
        for seconds, list_ in (
            (promises.after(fault.over), found.accepting),
            (successes.after(fault.over), found.working),
            (_back(fault, tries), found.back),
        ):
            if seconds is not None:
                list_.append(seconds)
    return by_kind


class _Firsts:
    """Spans of time, asked for the earliest end of those that began after a moment."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        spans = sorted(spans)
        self._begins = [begin for begin, _ in spans]
        self._ends: list[float] = []
        for _, end in reversed(spans):
            self._ends.append(min(end, self._ends[-1]) if self._ends else end)
        self._ends.reverse()

    def after(self, moment: float) -> float | None:
        place = bisect_left(self._begins, moment)
        return None if place == len(self._begins) else self._ends[place] - moment


def _back(fault: Done, tries: Sequence[Try]) -> float | None:
    """The longest wait of a job whose attempt was under way and was lost by it, until the next attempt began."""
    taken = {
        tried.job_id: tried
        for tried in tries
        if tried.started <= fault.began <= tried.ended <= fault.over + _BLAMED_SECONDS
        and tried.outcome in {"lost", "failed"}
    }
    nexts = [
        min((other.started for other in tries if other.job_id == job and other.started > tried.started), default=None)
        for job, tried in taken.items()
    ]
    waits = [begin - fault.began for begin in nexts if begin is not None]
    return max(waits, default=None)


def summary(seconds: Sequence[float]) -> tuple[str, str]:
    """Median and longest, for a table."""
    return (f"{median(seconds):.1f}", f"{max(seconds):.1f}") if seconds else ("-", "-")
