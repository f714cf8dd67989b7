"""Events that are of no job: what an endpoint's owner is told about the endpoint itself."""

from __future__ import annotations

from enum import StrEnum


class Notice(StrEnum):
    """The types of such events."""

    DISABLED = "webhook_endpoint.disabled"  # nothing is sent to it any more, by its owner's will or the sender's
    TEST = "webhook_endpoint.test"  # its owner wants to see one arrive; told to that endpoint alone


class DisabledReason(StrEnum):
    """Why nothing is sent to an endpoint."""

    REQUESTED = "requested"  # its tenant said so
    GONE = "gone"  # it answered 410
    FAILING = "failing"  # it has accepted nothing for days
