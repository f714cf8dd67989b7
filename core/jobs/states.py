"""Where a job stands, and how it may move. ``TRANSITIONS`` is the only authority.

::

    queued ──claim──▶ running ──▶ succeeded
      │  ▲               │  ├───▶ failed
      │  └──requeue──────┘  └───▶ canceled
      ├──▶ canceled
      ├──▶ failed     a job that was made for it has failed
      └──▶ expired

A cancel request, a pause, a lease, a not-before time and waiting for other jobs are columns, not states. CHECK
constraints on the table tie each state to its timestamps, and every move is one conditional UPDATE.
"""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    """What a job does."""

    TRAINING = "training"
    DISTILLATION = "distillation"
    GENERATION = "generation"
    TEACHER_PAIRS = "teacher_pairs"  # made for a distillation, never by itself


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # waiting for a worker, perhaps not before a time
    RUNNING = "running"  # held by one worker under a lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # attempts exhausted, or the error was permanent
    CANCELED = "canceled"  # somebody asked
    EXPIRED = "expired"  # its deadline passed before it started

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


class JobStage(StrEnum):
    """What a running job is busy with."""

    LOADING = "loading"
    WORKING = "working"
    UPLOADING = "uploading"


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    LOST = "lost"  # its lease ran out: the worker died or was cut off
    RETURNED = "returned"  # the worker gave it back unharmed: a drain; it does not count


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

TERMINAL: frozenset[JobState] = frozenset(state for state, after in TRANSITIONS.items() if not after)

PAUSABLE: frozenset[JobKind] = frozenset(JobKind) - {JobKind.GENERATION}  # which is over in seconds
