"""Postgres on this machine: one cluster, reached over a Unix socket that only its owner may enter.

There is no TCP port and no password: whoever can enter the socket's folder (mode 0700) is trusted, as they could
read the data files as well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from core.embedded.errors import EmbeddedError, ProcessFailed
from core.embedded.placement import PostgresHome
from core.embedded.process import Process, failure, log_tail, wait_until

SUPERUSER = "postgres"
OWNER, API, WORKER, OPERATOR = "lockstep_owner", "lockstep_api", "lockstep_worker", "lockstep_operator"

_INIT = ("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8")
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A client that hangs in a transaction holds locks and keeps dead rows; the work itself happens outside of any.
    "idle_in_transaction_session_timeout": "60s",
    "log_checkpoints": "off",
}
_UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_STARTUP = timedelta(seconds=60)  # crash recovery of a long log included


class Postgres:
    """One cluster with one database for each deployment and the three roles that use it."""

    name = "postgres"

    def __init__(self, home: PostgresHome, *, log: Path, database: str = "lockstep", durable: bool = True) -> None:
        self.home = home
        self.database = database
        self._durable = durable
        settings = _SETTINGS | ({} if durable else _UNSAFE_BUT_FAST)
        self.process = Process(
            name=self.name,
            command=(
                str(home.programs / "postgres"),
                *("-D", str(home.data), "-k", str(home.sockets)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ),
            log=log,
            environment={},  # PGDATA, PGPORT and their like are for the user's own Postgres
            account=home.account,
            stop_signal=signal.SIGINT,  # "fast": roll back what is open, write a checkpoint, end
            orphan_signal=signal.SIGINT,
            patience=timedelta(seconds=20),
        )

    def url(self, role: str = OWNER, *, database: str | None = None) -> URL:
        """Where ``role`` reaches ``database``, this deployment's own unless named."""
        return URL.create(
            "postgresql+psycopg",
            username=role,
            database=database or self.database,
            query={"host": str(self.home.sockets)},
        )

    def settings(self) -> Mapping[str, object]:
        """The settings with which the parts find this server."""
        return {
            "database_url": self.url(OWNER).render_as_string(),
            "api_database_url": self.url(API).render_as_string(),
            "worker_database_url": self.url(WORKER).render_as_string(),
            "operator_database_url": self.url(OPERATOR).render_as_string(),
        }

    def start(self) -> None:
        """Start the cluster, made first if there is none, and see to its roles and its database."""
        if not self.home.data.exists():
            make_cluster(self.home, durable=self._durable)
        self._start_when_the_last_has_gone()
        try:
            self._provide_roles_and_database()
        except psycopg.OperationalError as error:  # it was ready, and is not any more
            self.process.kill()
            raise failure(self.process, "went away while it was set up") from error

    def stop(self) -> None:
        """Stop the cluster in an orderly way."""
        self.process.stop()

    def is_ready(self) -> bool:
        """Whether the cluster accepts connections."""
        try:
            with self.superuser():
                return True
        except psycopg.OperationalError:
            return False

    @contextlib.contextmanager
    def superuser(self) -> Iterator[psycopg.Connection]:
        """A connection as the superuser, in autocommit, to the maintenance database."""
        connection = psycopg.connect(
            host=str(self.home.sockets), user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5
        )
        with connection:
            yield connection

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Create a database that ``lockstep_owner`` owns, a copy of ``template`` if that is given."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(OWNER), sql.Identifier(template or "template1")
        )
        with self.superuser() as connection:
            connection.execute(statement)

    def _start_when_the_last_has_gone(self) -> None:
        """Start the server, again while the one of a killed supervisor is still writing its last checkpoint."""
        deadline = time.monotonic() + _STARTUP.total_seconds()
        while True:
            self.process.start()
            try:
                wait_until(self.is_ready, process=self.process, within=_STARTUP)
                return
            except ProcessFailed:
                busy = any(sign in log_tail(self.process.log, lines=4) for sign in ("lock file", "shared memory block"))
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _provide_roles_and_database(self) -> None:
        with self.superuser() as connection:
            roles = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
            for role in (OWNER, API, WORKER, OPERATOR):
                if role not in roles:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
            databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        if self.database not in databases:
            self.create_database(self.database)


def make_cluster(home: PostgresHome, *, durable: bool) -> None:
    """Make an empty cluster in ``home``; one that is not durable does not wait for the disk."""
    unfinished = home.data.with_name("data.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    program = (str(home.programs / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, *_INIT)
    account = home.account
    made = subprocess.run(
        program if durable else (*program, "--no-sync"),
        capture_output=True,
        text=True,
        check=False,
        env={},
        cwd="/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb failed:\n{made.stdout}{made.stderr}")
    os.rename(unfinished, home.data)  # a cluster that is there is whole
