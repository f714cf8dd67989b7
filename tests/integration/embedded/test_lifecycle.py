"""``lockstepd up`` as a process: how it starts, how it ends, and what it finds when it starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.config import Settings
from core.embedded.ports import find_free
from tests.integration.embedded.running import COMMAND, PROJECT, RunningStack
from tests.integration.embedded.small_stack.api import make_server
from tests.stack import TestServers
from tests.waiting import eventually, is_alive, until


def _logs(folder: Path) -> set[str]:
    return {log.stem for log in (folder / "logs").iterdir()}


def _add_note(stack: RunningStack) -> int:
    with stack.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
        connection.execute("INSERT INTO note VALUES ('kept')")
        row = connection.execute("SELECT count(*) FROM note").fetchone()
    assert row is not None
    return int(row[0])


def test_up_starts_every_server_and_part_and_a_clean_stop_leaves_no_process(data_folder: Path) -> None:
    with RunningStack(data_folder) as stack:
        with urllib.request.urlopen(f"{stack.url}/readyz") as answer:
            assert answer.status == 200
        assert _logs(data_folder) == {"api", "worker", "postgres", "valkey", "seaweedfs"}
        assert stack.end(signal.SIGTERM) == 0
        assert not any(map(is_alive, stack.pids))
    assert not (data_folder / "running.json").exists()


def test_the_next_up_finds_the_data_after_a_stop_and_right_after_a_kill(
    data_folder: Path, s3_elsewhere: Mapping[str, str]
) -> None:
    with RunningStack(data_folder, environment=s3_elsewhere) as stack:
        before = _add_note(stack)
        stack.end(signal.SIGTERM)
    with RunningStack(data_folder, environment=s3_elsewhere) as stack:
        assert _add_note(stack) == before + 1
        stack.end(signal.SIGKILL)
    with RunningStack(data_folder, environment=s3_elsewhere) as stack:
        assert _add_note(stack) == before + 2


def test_killing_the_supervisor_takes_everything_with_it(data_folder: Path) -> None:
    with RunningStack(data_folder) as stack:
        stack.end(signal.SIGKILL)
        assert eventually(lambda: not any(map(is_alive, stack.pids)))


def test_a_setting_that_names_a_server_replaces_it_and_ctrl_c_stops_the_rest(
    reachable_folder: Path, servers: TestServers, s3_elsewhere: Mapping[str, str]
) -> None:
    elsewhere = {
        "LOCKSTEP_DATABASE_URL": servers.new_database().render_as_string(),
        "LOCKSTEP_BROKER_URL": servers.valkey.url,
        **s3_elsewhere,
    }
    folder = reachable_folder / "parts-only"
    with RunningStack(folder, environment=elsewhere) as stack:
        assert elsewhere.items() <= stack.workers()[-1].items()
        assert stack.end(signal.SIGINT) == 0
    assert _logs(folder) == {"api", "worker"}
    assert servers.postgres.is_ready()


def test_an_api_of_another_stack_that_took_the_port_meanwhile_does_not_pass_for_our_own(
    reachable_folder: Path, servers: TestServers, s3_elsewhere: Mapping[str, str]
) -> None:
    """Both chose the port while it was free; the other was the first to listen."""
    folder, port = reachable_folder / "late", find_free()[0]
    variables = {
        "LOCKSTEP_DATA_DIR": str(folder),
        "LOCKSTEP_PORT": str(port),
        "LOCKSTEP_DATABASE_URL": servers.new_database().render_as_string(),
        "LOCKSTEP_BROKER_URL": servers.valkey.url,
        **s3_elsewhere,
    }
    late = subprocess.Popen(COMMAND, cwd=PROJECT, env=os.environ | variables, stderr=subprocess.PIPE, text=True)
    try:
        until((folder / "running.json").exists)  # the port is chosen, and the parts are about to start
        with make_server(Settings(port=port)) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            _, said = late.communicate(timeout=30)
            other.shutdown()
    finally:
        late.kill()
        late.wait()
    assert late.returncode == 1
    assert "api failed 3 times in a row" in said
    assert "Address already in use" in said


def test_an_ordinary_user_runs_everything_as_themselves(reachable_folder: Path) -> None:
    as_somebody = ("unshare", "--user", "--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ()
    if as_somebody and subprocess.run([*as_somebody, "true"], check=False).returncode != 0:
        pytest.skip("this root may not make user namespaces")
    folder = reachable_folder / "ordinary"
    with RunningStack(folder, prefix=as_somebody) as stack:
        assert _add_note(stack) == 1
    assert (folder / "postgres" / "data").stat().st_uid == os.geteuid()  # whom the namespace calls 1000
