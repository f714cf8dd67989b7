"""``python -m workers.engine``: the GPU child (see `workers.engine.child`).

Its libraries bring some million objects that stay. Python's collector would look through them again and again while
they are imported, a quarter of the time that an engine takes to start, so it begins only then, and leaves them alone.
"""

from __future__ import annotations

import gc

gc.disable()

from workers.engine.child import main  # noqa: E402 - see above

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
