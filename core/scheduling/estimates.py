"""What jobs cost and when they start, learned from those that ended. Pure; ``learning`` reads and writes.

A job's cost is what a formula says, times what jobs like it took over what the formula said of them: those of its lane,
else of its kind and model, else of its kind. Its start is the work ahead of it over the workers, times a factor that
follows two quantiles of how late starts were: by their definition half and nine tenths start no later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

ENOUGH_SAMPLES: Final = 5
_LATEST_COUNTS: Final = 0.1  # of the mean
_MOST_LOG: Final = math.log(100)  # an estimate is never further from the formula
_STEP: Final = 0.2  # by which a quantile moves towards a sample, at most
_LEAST_SECONDS: Final = 0.5  # of a start: below, being late means nothing
MEDIAN, HIGH = 0.5, 0.9


def cost_keys(lane: str, kind: str, model_id: str) -> list[str]:
    """What a job's cost is learned under, the most special first."""
    return [lane, f"{kind}:{model_id}", kind]


def estimated_cost(formula_ms: int, log_mean: float | None) -> int:
    """GPU-milliseconds that a job is expected to take; at least 1."""
    return max(1, round(formula_ms * math.exp(log_mean or 0.0)))


def learned_mean(log_mean: float | None, samples: int, formula_ms: int, true_ms: float) -> float:
    """The mean after one more job: a plain mean of the first, then one in which the latest count most."""
    seen = math.log(max(true_ms, 1.0) / max(formula_ms, 1))
    bounded = max(-_MOST_LOG, min(_MOST_LOG, seen))
    share = max(_LATEST_COUNTS, 1 / (samples + 1))
    return bounded if log_mean is None else log_mean + share * (bounded - log_mean)


@dataclass(frozen=True)
class Calibration:
    """How late starts are, and how well that is known."""

    samples: int = 0
    median_log: float = 0.0
    high_log: float = math.log(2)
    within_median: int = 0
    within_high: int = 0

    def after(self, estimated_ms: float, waited_ms: float) -> Calibration:
        """The same after one more start."""
        late = math.log((waited_ms / 1000 + _LEAST_SECONDS) / (estimated_ms / 1000 + _LEAST_SECONDS))
        return replace(
            self,
            samples=self.samples + 1,
            median_log=_towards(self.median_log, late, MEDIAN),
            high_log=_towards(self.high_log, late, HIGH),
            within_median=self.within_median + (late <= self.median_log),
            within_high=self.within_high + (late <= self.high_log),
        )

    def start_seconds(self, estimated_ms: float) -> tuple[float, float]:
        """When half, and nine tenths, of the jobs with so much work ahead have started, in seconds from now."""
        base = estimated_ms / 1000 + _LEAST_SECONDS
        low, high = (base * math.exp(log) - _LEAST_SECONDS for log in (self.median_log, self.high_log))
        return max(0.0, low), max(0.0, low, high)


def _towards(quantile: float, sample: float, share: float) -> float:
    """Move a quantile by one sample: up by its share if the sample is above, down by the rest if it is below."""
    return quantile + _STEP * (share if sample > quantile else share - 1)


def work_ahead_ms(running_ms: int, ahead_ms: int, workers: int) -> float:
    """Milliseconds until a pool of so many workers has done what is ahead."""
    return (running_ms + ahead_ms) / max(1, workers)
