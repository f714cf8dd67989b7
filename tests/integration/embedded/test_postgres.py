"""Postgres that goes away while it is set up: the supervisor hears of it in the one way it understands."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.embedded.errors import ProcessFailed
from core.embedded.folder import DataFolder
from core.embedded.placement import find_home
from core.embedded.postgres import Postgres


class ShortLived(Postgres):
    """Killed at the very moment when it is ready."""

    def _start_when_the_last_has_gone(self) -> None:
        super()._start_when_the_last_has_gone()
        self.process.kill()


def test_a_server_that_is_killed_once_it_is_ready_has_failed_and_can_be_started_again(reachable_folder: Path) -> None:
    folder = DataFolder.open(reachable_folder / "short-lived")
    home, log = find_home(folder.path), folder.log("postgres")
    with pytest.raises(ProcessFailed, match="went away while it was set up"):
        ShortLived(home, log=log, durable=False).start()
    server = Postgres(home, log=log, durable=False)
    server.start()
    try:
        assert server.is_ready()
    finally:
        server.stop()
