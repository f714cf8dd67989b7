"""A tenant that leaves takes everything along and leaves nothing, in every table of the catalogue and in the bucket."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from zipfile import ZipFile

import pytest
from sqlalchemy.orm import sessionmaker

from core.db.tables import METADATA
from core.errors import Conflict, NotFound
from core.leaving.deletion import delete_tenant
from core.leaving.export import export_tenant
from core.members.roles import Role
from core.operations.audit import Actor
from core.storage import keys
from core.storage.s3 import ObjectStore
from tests.integration.api.members import put_user
from tests.serving import Deployment, Tenant, picture_bytes, refused

OWNED = sorted(name for name, table in METADATA.tables.items() if "tenant_id" in table.c)
OPERATOR = Actor("lockstepd")


def count(tenant: Tenant, table: str) -> int:
    return int(tenant.deployment.scalar(f"SELECT count(*) FROM {table} WHERE tenant_id = :id", id=tenant.id))


def counts(tenant: Tenant) -> dict[str, int]:
    return {table: count(tenant, table) for table in OWNED}


def delete(tenant: Tenant) -> Any:
    deployment = tenant.deployment
    return delete_tenant(sessionmaker(deployment.owner), deployment.store, OPERATOR, tenant.id)


@pytest.fixture
def latecomer(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that is about to leave."""
    tenant = Tenant(deployment, url, "latecomer")
    with tenant.http:
        yield tenant


@pytest.fixture(scope="module")
def student(owner: Tenant) -> str:
    """Id of a student, made before anything else waits in the queue."""
    return owner.distilled("swift", teacher="storybook")


@pytest.fixture(scope="module")
def full(owner: Tenant, student: str, belongings: dict[str, str]) -> Tenant:
    """The owner, with a row in every table and objects of all kinds, some of which no row names."""
    deployment = owner.deployment
    with deployment.owner.begin() as connection:
        connection.exec_driver_sql("INSERT INTO sched_notes (pool, tenant_id) VALUES ('gpu', %s)", (owner.id,))
    quoted = {"kind": "generation", "request": {"prompt": "a cat"}}
    assert owner.http.post("/v1/quotes", json=quoted).status_code == 201
    deployment.store.put(keys.checkpoint(belongings["generation"], 999, 3), b"x", media_type="a/b")
    deployment.store.put(keys.upload(owner.id, "file_lost"), b"x", media_type="a/b")
    owner.upload(picture_bytes(colour="blue"), name="../../etc/pass wd")
    return owner


@pytest.fixture(scope="module")
def exported(full: Tenant) -> ZipFile:
    written = io.BytesIO()
    export_tenant(sessionmaker(full.deployment.owner), full.deployment.store, full.id, written)
    return ZipFile(written)


def rows(exported: ZipFile, table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported.read(f"tables/{table}.jsonl").splitlines()]


@pytest.mark.parametrize("table", OWNED)
def test_an_export_has_the_rows_of_every_table_and_of_nobody_else(full: Tenant, exported: ZipFile, table: str):
    found = rows(exported, table)
    assert len(found) == count(full, table) > 0
    assert {row["tenant_id"] for row in found} == {full.id}


def test_an_export_names_the_tenant_and_its_people(full: Tenant, exported: ZipFile):
    assert [row["name"] for row in rows(exported, "tenants")] == ["owner"]
    assert [row["email"] for row in rows(exported, "users")] == ["olga@example.com"]


def test_an_export_has_every_file_bit_for_bit_under_a_harmless_name(full: Tenant, exported: ZipFile):
    files = rows(exported, "files")
    written = {name.split("/")[1]: name for name in exported.namelist() if name.startswith("files/")}
    assert written.keys() == {file["id"] for file in files}
    for file in files:
        assert hashlib.sha256(exported.read(written[file["id"]])).hexdigest() == file["sha256"]
    assert not any(".." in name.split("/") or " " in name for name in exported.namelist())


def test_an_export_holds_no_secret(full: Tenant, exported: ZipFile):
    text = "".join(exported.read(name).decode() for name in exported.namelist() if name.startswith("tables/"))
    for column in ("key_sha256", "token_sha256", "password_hash", "argon2", "whsec_"):
        assert column not in text


def test_an_object_that_is_gone_is_named_in_the_manifest(full: Tenant):
    lost = full.upload(picture_bytes(colour="red"))["id"]
    key = full.deployment.scalar("SELECT key FROM files WHERE id = :id", id=lost)
    full.deployment.store.delete(key)
    told = export_tenant(sessionmaker(full.deployment.owner), full.deployment.store, full.id, io.BytesIO())
    assert told["missing_files"] == [lost]


def test_nobody_that_is_not_there_is_exported_or_deleted(full: Tenant):
    sessions, store = sessionmaker(full.deployment.owner), full.deployment.store
    with pytest.raises(NotFound):
        export_tenant(sessions, store, "ten_x", io.BytesIO())
    with pytest.raises(NotFound):
        delete_tenant(sessions, store, OPERATOR, "ten_x")


def test_a_deletion_leaves_nothing_of_the_tenant_and_everything_of_the_others(
    full: Tenant, exported: ZipFile, friend: Tenant, stranger: Tenant, belongings: dict[str, str]
):
    deployment = full.deployment
    assert all(counts(full).values())
    stranger.generate("a cat")
    put_user(stranger, Role.OWNER, "olga@example.com")  # she belongs elsewhere too
    put_user(full, Role.VIEWER, "vera@example.com")
    job = friend.generate("<him>", concepts=[{"id": belongings["concept"], "as": "him"}])["id"]
    theirs, strangers = counts(friend), counts(stranger)
    own_keys = {row["key"] for row in rows(exported, "files")}
    gone = delete(full)
    assert {table for table, left in counts(full).items() if left} == {"audit_log"}
    assert deployment.scalar("SELECT count(*) FROM tenants WHERE id = :id", id=full.id) == 0
    assert deployment.scalar("SELECT array_agg(email) FROM users") == ["olga@example.com"]
    left = {found.key for found in deployment.store.list_page(after="", limit=1000)}
    named = set(deployment.scalar("SELECT array_agg(key) FROM files"))
    assert left == named
    assert not left & own_keys
    assert gone.rows > 20
    assert counts(stranger) == strangers
    changed = {table for table, number in counts(friend).items() if number != theirs[table]}
    ended = {"budget_notes", "concept_grants", "events", "granted_uses", "ledger_entries", "ready", "sched_notes"}
    assert changed <= ended | {"webhook_deliveries"}
    assert friend.http.get(f"/v1/jobs/{job}").json()["error"]["code"] == "grant-revoked"
    refused(full.http.get("/v1/jobs"), 401, "unauthenticated")
    with pytest.raises(NotFound):
        delete(full)


class WhileObjectsGo(ObjectStore):
    """The real store; something happens when its objects are first looked for."""

    def __init__(self, store: ObjectStore, happens: Callable[[], None]) -> None:
        self.__dict__.update(store.__dict__)
        self._happens: Callable[[], None] | None = happens

    def keys_under(self, prefix: str) -> Iterator[str]:
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        return super().keys_under(prefix)


def test_a_job_that_was_just_being_accepted_when_the_tenant_was_shut_is_found(latecomer: Tenant):
    """Its request had passed the door before; it must not run on with nobody to answer for what it writes."""
    deployment = latecomer.deployment
    late = latecomer.generate("a cat")["id"]
    with deployment.owner.begin() as connection:  # what the request will commit
        row = connection.exec_driver_sql("SELECT to_jsonb(j) FROM jobs j WHERE id = %s", (late,)).scalar_one()

    def commit() -> None:
        again = row | {"id": f"{late}x", "state": "queued"}
        with deployment.owner.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO jobs SELECT (jsonb_populate_record(NULL::jobs, %s)).*", (json.dumps(again),)
            )

    store = WhileObjectsGo(deployment.store, commit)
    with pytest.raises(Conflict, match="repeat"):
        delete_tenant(sessionmaker(deployment.owner), store, OPERATOR, latecomer.id)
    assert count(latecomer, "jobs") == 2
    delete(latecomer)
    assert {table for table, left in counts(latecomer).items() if left} == {"audit_log"}


def test_a_tenant_whose_jobs_run_is_shut_first_and_deleted_when_they_have_stopped(friend: Tenant):
    friend.deployment.claim(friend.generate("a cat")["id"])
    with pytest.raises(Conflict, match="still run"):
        delete(friend)
    refused(friend.http.get("/v1/jobs"), 401, "unauthenticated")
    assert count(friend, "jobs") > 0
    stop = (
        "UPDATE jobs SET state = 'canceled', lease_token = NULL, lease_until = NULL, stage = NULL,"
        " finished_at = now() WHERE tenant_id = %s AND state = 'running'"
    )
    with friend.deployment.owner.begin() as connection:
        connection.exec_driver_sql(stop, (friend.id,))
    delete(friend)
    assert {table for table, left in counts(friend).items() if left} == {"audit_log"}
