"""The database itself keeps tenants apart, whatever the API's code would forget: the API's own role, on full tables."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from core.db.engine import bind_tenant, sync_engine
from core.db.tables import METADATA

SHARED = {"pools", "workers"}  # nobody's
OWNED = sorted(set(METADATA.tables) - SHARED - {"tenants", "models"})
INSERTABLE = [
    "concepts",
    "events",
    "files",
    "idempotency_keys",
    "jobs",
    "ready",
    "sched_notes",
    "tenant_pools",
    "tenant_sched",
    "webhook_deliveries",
    "webhook_endpoints",
]


@pytest.fixture(scope="module")
def api(deployment):
    engine = sync_engine(deployment.settings.api_dsn)
    yield engine
    engine.dispose()


def count(api, table, tenant_id=None):
    with Session(api) as session:
        if tenant_id is not None:
            bind_tenant(session, tenant_id)
        return session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


@pytest.mark.parametrize("table", OWNED)
def test_rows_are_seen_by_their_tenant_and_by_nobody_else(api, deployment, owner, stranger, belongings, table):
    if table == "ready":
        owner.generate("a cat")
    if table == "sched_notes":
        with deployment.owner.begin() as connection:
            connection.exec_driver_sql("INSERT INTO sched_notes (pool, tenant_id) VALUES ('gpu', %s)", (owner.id,))
    assert count(api, table, owner.id) == deployment.scalar(
        f"SELECT count(*) FROM {table} WHERE tenant_id = :id", id=owner.id
    )
    assert count(api, table, owner.id) > 0
    assert count(api, table) == 0
    others = deployment.scalar(f"SELECT count(*) FROM {table} WHERE tenant_id = :id", id=stranger.id)
    assert count(api, table, stranger.id) == others


@pytest.mark.parametrize("table", INSERTABLE)
def test_no_row_can_be_written_for_another_tenant(api, deployment, owner, stranger, belongings, table):
    """A copy of one of the owner's rows, as it stands, is refused to the stranger by the policy, not by a key."""
    columns = [column["name"] for column in inspect(deployment.owner).get_columns(table) if not column.get("identity")]
    names = ", ".join(columns)
    with deployment.owner.begin() as connection:
        connection.execute(text(f"CREATE TABLE IF NOT EXISTS copied_{table} AS SELECT * FROM {table} LIMIT 0"))
        connection.execute(
            text(f"INSERT INTO copied_{table} SELECT * FROM {table} WHERE tenant_id = :id LIMIT 1"), {"id": owner.id}
        )
        connection.execute(text(f"GRANT SELECT ON copied_{table} TO lockstep_api"))
    with Session(api) as session, pytest.raises(ProgrammingError, match="row-level security"):
        bind_tenant(session, stranger.id)
        copied = session.execute(text(f"INSERT INTO {table} ({names}) SELECT {names} FROM copied_{table}"))
        assert copied.rowcount == 0, "there was nothing to copy"


@pytest.mark.parametrize("table", ["concepts", "files", "jobs", "webhook_endpoints"])
def test_no_row_can_be_given_away_or_taken(api, owner, stranger, belongings, table):
    rights = {"files": "DELETE FROM files"}.get(table, f"UPDATE {table} SET tenant_id = tenant_id")
    with Session(api) as session:
        bind_tenant(session, stranger.id)
        touched = session.execute(text(f"{rights} WHERE tenant_id = :id"), {"id": owner.id})
        assert touched.rowcount == 0
    if table != "files":
        with Session(api) as session, pytest.raises(ProgrammingError, match="row-level security"):
            bind_tenant(session, owner.id)
            session.execute(text(f"UPDATE {table} SET tenant_id = :id"), {"id": stranger.id})


def test_a_model_of_a_tenant_is_his_and_those_of_the_platform_are_everybodys(api, deployment, owner, stranger):
    with deployment.owner.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO models (id, tenant_id, name, family, location, facts)"
            " VALUES ('mdl_own', %s, 'own', 'stable-diffusion', 'x', '{\"name\": \"own\"}')",
            (owner.id,),
        )
    names = {
        tenant.id: {model["name"] for model in tenant.http.get("/v1/models").json()["data"]}
        for tenant in (owner, stranger)
    }
    assert names == {owner.id: {"other", "own", "storybook"}, stranger.id: {"other", "storybook"}}
