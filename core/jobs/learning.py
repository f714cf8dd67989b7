"""Learning from the attempts that ended: what jobs of a kind cost, and how late they started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.jobs import tallying
from core.jobs.params import AnyParams, JobParams, cost_ms
from core.scheduling import statements
from core.scheduling.estimates import Calibration, cost_keys, learned_mean

_PASS = 500
_SETTLED = timedelta(seconds=5)  # until then, attempts that ended earlier may yet be committed
_NAME = "learning"
_PARAMS: TypeAdapter[AnyParams] = TypeAdapter(JobParams)


@dataclass(frozen=True)
class LearnCounts:
    """How many costs and how many starts were learned from."""

    costs: int = 0
    starts: int = 0


def learn(session: Session) -> LearnCounts:
    """Read what ended since the last pass, and remember what it says."""
    values = {"name": _NAME, "settled": _SETTLED, "limit": _PASS}
    rows = session.execute(statements.ENDED_ATTEMPTS, values).all()
    if not rows:
        return LearnCounts()
    tallying.count(session, rows)
    counts = LearnCounts(_learn_costs(session, rows), _learn_starts(session, rows))
    session.execute(statements.MOVE_MARK, {"name": _NAME, "at": rows[-1].ended_at, "token": rows[-1].token})
    return counts


def _learn_costs(session: Session, rows: Sequence[Row[Any]]) -> int:
    samples = [(row, formula) for row in rows if row.is_whole and (formula := _formula(row.params)) is not None]
    by_key: dict[str, list[tuple[int, float]]] = {}
    for row, formula in samples:
        for key in cost_keys(row.lane, row.kind, row.model_id):
            by_key.setdefault(key, []).append((formula, 1000 * row.gpu_seconds))
    known = {row.key: row for row in session.execute(statements.COSTS, {"keys": list(by_key)})}
    for key, seen in by_key.items():
        mean, count = (known[key].log_mean, known[key].samples) if key in known else (None, 0)
        for formula, true_ms in seen:
            mean, count = learned_mean(mean, count, formula, true_ms), count + 1
        session.execute(statements.KEEP_COST, {"key": key, "samples": count, "log_mean": mean})
    return len(samples)


def _formula(params: Mapping[str, Any]) -> int | None:
    try:
        return cost_ms(_PARAMS.validate_python(params))
    except ValidationError:  # another release's
        return None


def _learn_starts(session: Session, rows: Sequence[Row[Any]]) -> int:
    started = [row for row in rows if row.start_estimate_ms is not None and row.is_first]
    for pool in sorted({row.pool for row in started}):
        found = session.execute(statements.CALIBRATION, {"pool": pool}).one_or_none()
        calibration = Calibration() if found is None else Calibration(**found._mapping)
        for row in started:
            if row.pool == pool:
                calibration = calibration.after(row.start_estimate_ms, row.waited / timedelta(milliseconds=1))
        session.execute(statements.KEEP_CALIBRATION, {"pool": pool, **asdict(calibration)})
    return len(started)
