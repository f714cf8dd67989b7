"""What was learned of jobs: their cost, and how far estimates of their start are off."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, Name


class CostEstimate(Base):
    """How many times what the formula says jobs take in truth: the mean of the logarithm, the latest counting most.

    ``key`` is a lane, a kind with its model, or a kind.
    """

    __tablename__ = "cost_estimates"

    key: Mapped[Name] = mapped_column(primary_key=True)
    samples: Mapped[int]
    log_mean: Mapped[float]


class StartCalibration(Base):
    """By what factor, as a logarithm, starts in a pool came later than the work ahead of them said.

    ``median_log`` and ``high_log`` follow the median and the ninetieth percentile; the counts say how many of the
    samples started no later than either said when they were submitted.
    """

    __tablename__ = "start_calibrations"

    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"), primary_key=True)
    samples: Mapped[int]
    median_log: Mapped[float]
    high_log: Mapped[float]
    within_median: Mapped[int]
    within_high: Mapped[int]


class AttemptTally(Base):
    """How many attempts ended in one way, how long they took and their GPU-seconds."""

    __tablename__ = "attempt_tallies"

    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    attempts: Mapped[int]
    seconds: Mapped[float]
    gpu_seconds: Mapped[float]


class WaitTally(Base):
    """How many jobs of a priority started within ``bound`` seconds, not within the bound before; the sum of waits."""

    __tablename__ = "wait_tallies"

    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"), primary_key=True)
    priority: Mapped[int] = mapped_column(primary_key=True)
    bound: Mapped[float] = mapped_column(primary_key=True)
    starts: Mapped[int]
    seconds: Mapped[float]


class BatchTally(Base):
    """How many batches of a size were claimed by workers that held the model, or had to load it."""

    __tablename__ = "batch_tallies"

    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    warm: Mapped[bool] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(primary_key=True)
    batches: Mapped[int]


class Mark(Base):
    """How far a loop of maintenance has read the attempts that ended."""

    __tablename__ = "marks"

    name: Mapped[Name] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    token: Mapped[int]
