from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from core.db.engine import bind_tenant, sync_engine
from core.db.tables import METADATA
from core.embedded.postgres import API, WORKER
from core.tenants import keys
from core.tenants.provisioning import create_key, create_tenant

SHARED = {
    "pools",
    "workers",
    "cost_estimates",
    "start_calibrations",
    "marks",
    "attempt_tallies",
    "wait_tallies",
    "batch_tallies",
    "self_tests",
    "invariant_looks",
    "sign_in_tries",
}  # no tenant's; fmt: skip


@pytest.fixture
def database(postgres_url):
    engines = {role: sync_engine(postgres_url.set(username=role)) for role in (API, WORKER)}
    engines["owner"] = sync_engine(postgres_url)
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def two_tenants(database):
    with Session(database["owner"]) as session, session.begin():
        return [create_tenant(session, name).id for name in ("one", "two")]


def api_session(database, tenant_id=None):
    session = Session(database[API])
    if tenant_id is not None:
        bind_tenant(session, tenant_id)
    return session


def test_every_tenant_table_forces_row_level_security(database):
    with database["owner"].connect() as connection:
        rows = connection.execute(
            text("SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class WHERE relkind = 'r'")
        )
        forced = {row.relname: row.forced for row in rows}
    assert {name for name in METADATA.tables if not forced[name]} == SHARED


def test_every_table_of_the_catalogue_with_a_tenant_is_guarded(database):
    """Also one that the models do not know, or that somebody called shared."""
    with database["owner"].connect() as connection:
        unguarded = connection.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
                " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
                " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
            )
        )
        assert unguarded.scalars().all() == []


def test_rows_of_tenants_refer_to_rows_of_the_same_tenant_only():
    """A foreign key from one tenant's table to another has the tenant in it, but for what workers alone write."""
    owned = {table for table in METADATA.tables.values() if "tenant_id" in table.c}
    loose = {
        (table.name, key.referred_table.name)
        for table in owned
        for key in table.foreign_key_constraints
        if key.referred_table in owned and "tenant_id" not in key.column_keys
    }
    assert loose == {
        ("webhook_attempts", "webhook_deliveries"),
        ("models", "files"),
        # A platform's model is nobody's; row-level security keeps to the tenant's own and those.
        ("concepts", "models"),
        ("jobs", "models"),
        ("models", "models"),
    }


def test_a_session_sees_its_own_tenant_in_every_transaction_and_without_one_nothing(database, two_tenants):
    one, two = two_tenants
    for tenant_id in (one, two, one):
        with api_session(database, tenant_id) as session:
            for _ in range(2):
                assert session.execute(text("SELECT id FROM tenants")).scalars().all() == [tenant_id]
                session.commit()
    with api_session(database) as session:
        assert session.execute(text("SELECT id FROM tenants")).scalars().all() == []


def test_a_row_for_another_tenant_is_refused(database, two_tenants):
    one, two = two_tenants
    with api_session(database, one) as session, pytest.raises(ProgrammingError, match="row-level security"):
        session.execute(
            text("INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, secret)"
                 " VALUES ('we_1', :t, 'n', 'u', '{}', 's')"), {"t": two}
        )  # fmt: skip


def insert_model(session, owner, *, kind="student", **more):
    row = {"id": "mdl_x", "tenant_id": owner, "name": "x", "kind": kind, "family": "f", "facts": "{}", **more}
    row |= {"teacher_id": "mdl_base"} if kind == "student" else {}
    columns = ", ".join(row)
    session.execute(text(f"INSERT INTO models ({columns}) VALUES ({', '.join(f':{name}' for name in row)})"), row)


@pytest.fixture
def base(database):
    with Session(database[WORKER]) as session, session.begin():
        session.execute(text("DELETE FROM models"))
        insert_model(session, None, kind="base", id="mdl_base", name="base", location="here")


@pytest.mark.parametrize(("owner", "kind"), [(1, "student"), (None, "student"), (None, "base"), (0, "base")], ids=str)
def test_the_api_makes_no_models_but_students_of_its_own_tenant(database, two_tenants, base, owner, kind):
    tenant_id = None if owner is None else two_tenants[owner]
    with api_session(database, two_tenants[0]) as session, pytest.raises(ProgrammingError, match="row-level security"):
        insert_model(session, tenant_id, kind=kind)
    with api_session(database, two_tenants[0]) as session:
        insert_model(session, two_tenants[0])


@pytest.mark.parametrize("column", ["location", "file_id"])
def test_the_api_cannot_say_where_a_student_lies(database, two_tenants, base, column):
    with api_session(database, two_tenants[0]) as session, pytest.raises(ProgrammingError, match="permission denied"):
        insert_model(session, two_tenants[0], **{column: "somewhere"})
    with api_session(database, two_tenants[0]) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(text(f"UPDATE models SET {column} = 'somewhere'"))


def test_the_api_changes_only_students_that_are_not_made_yet(database, two_tenants, base):
    one, two = two_tenants
    with Session(database[WORKER]) as session, session.begin():
        insert_model(session, one)
        insert_model(session, two, id="mdl_z")
    with api_session(database, one) as session:
        changed = session.execute(text("UPDATE models SET family = 'g' RETURNING id")).scalars().all()
    assert changed == ["mdl_x"]


@pytest.mark.parametrize("statement", ["SET ROLE lockstep_owner", "SET ROLE lockstep_worker", "DELETE FROM jobs"])
def test_the_api_cannot_become_more_than_it_is(database, statement):
    with api_session(database) as session, pytest.raises(ProgrammingError):
        session.execute(text(statement))


def test_a_key_is_resolved_by_its_hash_alone_and_never_read(database, two_tenants):
    with Session(database["owner"]) as session, session.begin():
        key = create_key(session, two_tenants[0], "k", frozenset({"read"}))
    with api_session(database) as session:
        resolve = text("SELECT tenant_id, scopes FROM resolve_api_key(:sha)")
        assert session.execute(resolve, {"sha": keys.digest(key)}).one() == (two_tenants[0], ["read"])
        assert session.execute(resolve, {"sha": keys.digest(keys.new_key())}).one_or_none() is None
        assert session.execute(text("SELECT * FROM api_keys")).all() == []


def test_a_worker_sees_every_tenant(database, two_tenants):
    with Session(database[WORKER]) as session:
        assert set(two_tenants) <= set(session.execute(text("SELECT id FROM tenants")).scalars())
