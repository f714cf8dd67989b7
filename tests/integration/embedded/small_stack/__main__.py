"""Supervise the small stack until a signal."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial

from core.config import Settings
from core.embedded.errors import EmbeddedError
from core.embedded.stack import Part, run_stack

_PARTS = [Part(name, f"{__package__}.{name}", timedelta(seconds=5)) for name in ("api", "worker")]


def main() -> None:
    try:
        with run_stack(Settings(), report=partial(print, flush=True), parts=_PARTS) as stack:
            if stack.wait_until_ready():
                print("ready", stack.settings.base_url, flush=True)
                stack.watch()
    except EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
