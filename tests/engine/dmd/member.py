"""A process of a group that does nothing but be there: it says who it is, and stays until it is ended."""

from __future__ import annotations

import os
import signal

from workers.engine.dmd.group import Seat

if __name__ == "__main__":
    Seat().send(os.getpid())
    signal.pause()
