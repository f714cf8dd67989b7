"""What can go wrong with the servers and parts on this machine, told to the operator who started them."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The stack on this machine cannot start or go on; the message says what to do."""


class ProcessFailed(EmbeddedError):
    """A program ended, or did not become ready in time; the message ends with the last lines of its log."""


class AlreadyRunning(EmbeddedError):
    """Another supervisor holds this data folder."""
