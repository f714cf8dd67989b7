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

SHARED = {"pools", "workers"}


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


@pytest.mark.parametrize(("owner", "kind"), [(1, "student"), (None, "student"), (None, "base"), (0, "base")], ids=str)
def test_the_api_makes_students_of_its_own_tenant_and_no_other_models(database, two_tenants, owner, kind):
    insert = text(
        "INSERT INTO models (id, tenant_id, name, kind, family, location, teacher_id, facts)"
        " VALUES (:id, :owner, :id, :kind, 'f', :location, :teacher, '{}')"
    )
    with Session(database[WORKER]) as session, session.begin():
        session.execute(text("INSERT INTO models (id, name, family, location, facts)"
                             " VALUES ('mdl_base', 'base', 'f', 'l', '{}') ON CONFLICT DO NOTHING"))  # fmt: skip
    row = {"kind": kind, "location": "l" if kind == "base" else None}
    row |= {"teacher": None if kind == "base" else "mdl_base"}
    row |= {"location": "l"} if owner is None else {}
    with api_session(database, two_tenants[0]) as session, pytest.raises(ProgrammingError, match="row-level security"):
        session.execute(insert, {"id": "mdl_x", "owner": None if owner is None else two_tenants[owner], **row})
    with api_session(database, two_tenants[0]) as session:
        own = {"kind": "student", "location": None, "teacher": "mdl_base"}
        session.execute(insert, {"id": "mdl_y", "owner": two_tenants[0], **own})


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
