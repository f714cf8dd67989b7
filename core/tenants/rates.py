"""Rate limits: a token bucket per tenant, shared by every process of the API because Postgres keeps it.

A bucket is taken from in the statement that looks the API key up, so it costs no round trip of its own, and works
whether the broker does or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from sqlalchemy import Row

PolicyName = Literal["requests", "jobs"]


@dataclass(frozen=True)
class RatePolicy:
    """So many requests a minute, of those that count here; all at once, if none came before. 0: no limit."""

    name: PolicyName
    quota: int

    period: ClassVar[timedelta] = timedelta(minutes=1)

    def as_header(self) -> str:
        """For ``RateLimit-Policy``, as draft-ietf-httpapi-ratelimit-headers-11 has it."""
        return f'"{self.name}";q={self.quota};w={self.period.seconds}'


@dataclass(frozen=True)
class RateStanding:
    """How a bucket stands after a request: whether that got a token, and how long until the bucket is full again."""

    policy: RatePolicy
    taken: bool
    full_in: timedelta

    @classmethod
    def of(cls, policy: RatePolicy, row: Row[Any]) -> RateStanding | None:
        """As the statement says that looked a key or a session up; None without a limit."""
        return cls(policy, row.taken, row.full_in) if policy.quota else None

    @property
    def left(self) -> int:
        """Requests that would be served at this moment."""
        missing = max(timedelta(0), self.full_in) / RatePolicy.period
        return max(0, math.floor(self.policy.quota * (1 - missing) + 1e-6))

    @property
    def next_in(self) -> timedelta:
        """How long until the bucket has a token."""
        token = RatePolicy.period / self.policy.quota
        return max(timedelta(0), self.full_in - (RatePolicy.period - token))

    def as_header(self) -> str:
        """For ``RateLimit``, by the same draft."""
        return f'"{self.policy.name}";r={self.left};t={whole_seconds(self.full_in)}'


def whole_seconds(time: timedelta) -> int:
    """Rounded up: whoever waits for so long has waited long enough."""
    return max(0, math.ceil(time.total_seconds()))
