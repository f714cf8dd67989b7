"""Real servers for the tests: one Postgres, Valkey and SeaweedFS for a whole run of pytest, in a temporary folder.

Each is started when the first test asks for it. Modules are kept apart by what is cheap to make: a database cloned
from a migrated template, a bucket, an emptied broker.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import redis
from psycopg import sql
from sqlalchemy.engine import URL

from core.config import Settings
from core.db import migrations
from core.embedded.folder import DataFolder
from core.embedded.placement import find_home
from core.embedded.postgres import API, OPERATOR, WORKER, Postgres
from core.embedded.seaweed import SeaweedFS
from core.embedded.stack import make_seaweedfs, make_valkey
from core.embedded.valkey import Valkey
from core.storage.s3 import ObjectStore

_TEMPLATE = "lockstep_template"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 * 1024**3


class TestServers:
    """The three servers of one run, started at their first use."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self._at_the_end = ExitStack()

    @cached_property
    def postgres(self) -> Postgres:
        """A cluster that does not wait for the disk, with a migrated template database."""
        server = Postgres(find_home(self.folder.path), log=self.folder.log("postgres"), durable=False)
        self._at_the_end.callback(server.stop)  # killed, it would leave its shared memory behind
        server.start()
        server.create_database(_TEMPLATE)
        migrations.upgrade(server.url(database=_TEMPLATE))
        return server

    @cached_property
    def valkey(self) -> Valkey:
        """A Redis-protocol server."""
        server = make_valkey(self.folder)
        self._at_the_end.callback(server.process.kill)
        server.start()
        return server

    @cached_property
    def seaweed(self) -> SeaweedFS:
        """An S3 server."""
        server = make_seaweedfs(self.folder)
        self._at_the_end.callback(server.process.kill)
        server.start()
        return server

    def new_database(self) -> URL:
        """A database of its own with all tables and no rows, as the role that owns them."""
        name = f"lockstep_{next(self._numbers)}"
        self.postgres.create_database(name, template=_TEMPLATE)
        return self.postgres.url(database=name)

    def drop_database(self, url: URL) -> None:
        """Give back its memory; a run makes some four hundred databases of nine megabytes."""
        with self.postgres.superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(url.database))))

    def new_bucket(self) -> dict[str, object]:
        """The ``s3_...`` settings of an empty bucket."""
        values = {**self.seaweed.settings(), "s3_bucket": f"lockstep-{next(self._numbers)}"}
        ObjectStore.from_settings(Settings.model_validate(values)).ensure_bucket()
        return values

    def new_settings(self) -> Settings:
        """Settings of a deployment on a database and a bucket of its own, and the emptied broker."""
        return self.settings(self.new_database(), self.emptied_broker(), self.new_bucket())

    def settings(self, postgres_url: URL, broker_url: str, object_store: dict[str, object]) -> Settings:
        """Settings of a deployment on these."""
        values: dict[str, object] = {
            "database_url": postgres_url.render_as_string(),
            "api_database_url": postgres_url.set(username=API).render_as_string(),
            "worker_database_url": postgres_url.set(username=WORKER).render_as_string(),
            "operator_database_url": postgres_url.set(username=OPERATOR).render_as_string(),
            "broker_url": broker_url,
            "data_dir": self.folder.path,
            "device": "cpu",
            "url_secret": "a secret of the tests, of 32 characters and more",
            "webhook_allow": ("127.0.0.0/8",),
        }
        return Settings.model_validate(values | object_store)

    def emptied_broker(self) -> str:
        """The broker's URL, after everything in it was dropped."""
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
        return self.valkey.url

    def restart(self) -> None:
        """Stop those that were started, and start them again on what they keep."""
        for server in (self.postgres, self.valkey, self.seaweed):
            server.process.stop()
            server.start()

    def stop(self) -> None:
        """End the servers that were started; nothing of theirs is needed again."""
        self._at_the_end.close()


@contextmanager
def run_servers() -> Iterator[TestServers]:
    """The servers of one run."""
    with server_folder() as path:
        servers = TestServers(DataFolder.open(path / "data"))
        try:
            yield servers
        finally:
            servers.stop()


@contextmanager
def server_folder() -> Iterator[Path]:
    """A temporary folder for servers' data, in memory where there is room: it is written much and kept never.

    Not one of pytest's own: their mode keeps out the user as whom root's Postgres runs.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    path = Path(tempfile.mkdtemp(prefix="lockstep-tests-", dir=_MEMORY if in_memory else None))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)
