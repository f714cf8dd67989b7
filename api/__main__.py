"""``python -m api``: serve until told to stop."""

from __future__ import annotations

import uvicorn

from api.main import create_app
from core.config import Settings
from core.logging import configure_logging

# Streams and held answers end with the server; their clients know how to go on.
_GRACE_SECONDS = 3


def main() -> None:
    """Serve as the environment's settings say."""
    configure_logging("api")
    settings = Settings()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # every request is logged with its id
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )


if __name__ == "__main__":
    main()
