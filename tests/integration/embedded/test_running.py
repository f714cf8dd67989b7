"""A stack that runs: what its parts know, what it does when one of them dies, and whom it keeps out."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.integration.embedded.running import COMMAND, PROJECT, RunningStack
from tests.waiting import eventually


@pytest.fixture(scope="module")
def stack(data_folder: Path, s3_elsewhere: Mapping[str, str]) -> Iterator[RunningStack]:
    with RunningStack(data_folder, environment=s3_elsewhere) as running:
        yield running


def _answers(stack: RunningStack) -> bool:
    try:
        stack.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def test_every_part_gets_the_settings_of_the_servers_in_its_environment(stack: RunningStack) -> None:
    told, settings = stack.workers()[-1], stack.settings()
    assert told["LOCKSTEP_DATABASE_URL"] == settings.database_url
    assert told["LOCKSTEP_BROKER_URL"] == settings.broker_url
    assert told["LOCKSTEP_DATA_DIR"] == str(stack.folder)


def test_each_part_logs_in_as_a_role_that_is_no_superuser(stack: RunningStack) -> None:
    settings = stack.settings()
    for dsn in (settings.owner_dsn, settings.api_dsn, settings.worker_dsn):
        with psycopg.connect(dsn.set(drivername="postgresql").render_as_string()) as connection:
            query = "SELECT rolsuper OR rolbypassrls OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
            assert connection.execute(query).fetchone() == (False,)
            assert connection.info.user == dsn.username


def test_secrets_are_for_the_owner_of_the_folder_alone(stack: RunningStack) -> None:
    secret = ["credentials.json", "running.json", "valkey/valkey.conf"]
    assert {oct((stack.folder / name).stat().st_mode & 0o777) for name in secret} == {"0o600"}
    assert (stack.folder / "postgres" / "run").stat().st_mode & 0o777 == 0o700


def test_a_second_up_in_the_same_folder_says_that_it_is_running(stack: RunningStack) -> None:
    environment = {**os.environ, "LOCKSTEP_DATA_DIR": str(stack.folder)}
    second = subprocess.run(COMMAND, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "already running" in second.stderr


def test_a_part_that_dies_is_started_again(stack: RunningStack) -> None:
    started = len(stack.workers())
    os.kill(int(stack.workers()[-1]["pid"]), signal.SIGKILL)
    assert "ended with code -9" in stack.read_until("worker ")
    assert eventually(lambda: len(stack.workers()) == started + 1)


def test_a_server_that_dies_is_started_again_where_its_clients_look_for_it(stack: RunningStack) -> None:
    with stack.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
    postmaster = (stack.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
    os.kill(int(postmaster), signal.SIGKILL)
    stack.read_until("postgres ended")
    assert eventually(lambda: _answers(stack))
    with stack.connect() as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
