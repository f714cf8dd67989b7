"""A process that tells its settings, one JSON line, and waits for a signal."""

from __future__ import annotations

import json
import os
import signal

from core.config import Settings

if __name__ == "__main__":
    print(json.dumps({"pid": os.getpid(), **Settings().environment()}), flush=True)
    signal.pause()
