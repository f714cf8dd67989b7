"""The database itself keeps tenants apart, whatever the API's code would forget: the API's own role, on full tables."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from core.db.engine import bind_tenant, sync_engine
from core.db.tables import METADATA

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
}  # nobody's; fmt: skip
OWNED = sorted(set(METADATA.tables) - SHARED - {"tenants", "models", "users"})
INSERTABLE = [
    "api_keys",
    "budget_notes",
    "budgets",
    "concept_grants",
    "concepts",
    "events",
    "files",
    "idempotency_keys",
    "invitations",
    "jobs",
    "ledger_entries",
    "quotes",
    "ready",
    "sched_notes",
    "tenant_pools",
    "tenant_sched",
    "uploads",
    "user_sessions",
    "webhook_deliveries",
    "webhook_endpoints",
]


@pytest.fixture(scope="module")
def api(deployment):
    """Runs one statement as the API's role, for a tenant or for none; what it changes is undone."""
    engine = sync_engine(deployment.settings.api_dsn)

    def run(sql, tenant_id=None, **values):
        with Session(engine) as session:
            if tenant_id is not None:
                bind_tenant(session, tenant_id)
            result = session.connection().execute(text(sql), values)
            return result.scalar_one() if result.returns_rows else result.rowcount

    yield run
    engine.dispose()


@pytest.fixture(scope="module")
def full(deployment, owner, belongings):
    """A deployment in which the owner has a row in every table."""
    owner.generate("a cat")  # it waits in `ready`
    with deployment.owner.begin() as connection:
        connection.exec_driver_sql("INSERT INTO sched_notes (pool, tenant_id) VALUES ('gpu', %s)", (owner.id,))
        connection.exec_driver_sql("INSERT INTO budget_notes (tenant_id) VALUES (%s)", (owner.id,))
        connection.exec_driver_sql(
            "INSERT INTO quotes (id, tenant_id, request_sha256, amounts_ms, expires_at)"
            " VALUES ('quo_1', %s, 'x', '{1}', now())",
            (owner.id,),
        )
        connection.exec_driver_sql(
            "INSERT INTO audit_log (id, tenant_id, actor, action, object_id) VALUES ('aud_1', %s, 'a', 'b', 'c')",
            (owner.id,),
        )
    return deployment


@pytest.mark.parametrize("table", OWNED)
def test_rows_are_seen_by_their_tenant_and_by_nobody_else(api, full, owner, stranger, table):
    count = f"SELECT count(*) FROM {table}"
    for tenant in (owner, stranger):
        true = full.scalar(f"{count} WHERE tenant_id = :id", id=tenant.id)
        assert api(count, tenant.id) == true
        assert (true > 0) or tenant is stranger
    assert api(count) == 0


@pytest.mark.parametrize("table", INSERTABLE)
def test_no_row_can_be_written_for_another_tenant(api, full, owner, stranger, table):
    """A copy of one of the owner's rows, as it stands, is refused to the stranger by the policy, not by a key."""
    names = ", ".join(column["name"] for column in inspect(full.owner).get_columns(table) if not column.get("identity"))
    with full.owner.begin() as connection:
        rows = f"SELECT * FROM {table} WHERE tenant_id = :id LIMIT 1"
        connection.execute(text(f"CREATE TABLE copied_{table} AS {rows}"), {"id": owner.id})
        connection.execute(text(f"GRANT SELECT ON copied_{table} TO lockstep_api"))
    assert api(f"SELECT count(*) FROM copied_{table}", stranger.id) == 1
    with pytest.raises(ProgrammingError, match="row-level security"):
        api(f"INSERT INTO {table} ({names}) SELECT {names} FROM copied_{table}", stranger.id)


@pytest.mark.parametrize("table", ["concepts", "jobs", "webhook_endpoints"])
def test_no_row_can_be_taken_or_given_away(api, full, owner, stranger, table):
    assert (
        api(f"UPDATE {table} SET tenant_id = :to WHERE tenant_id = :of", stranger.id, to=stranger.id, of=owner.id) == 0
    )
    with pytest.raises(ProgrammingError, match="row-level security"):
        api(f"UPDATE {table} SET tenant_id = :to", owner.id, to=stranger.id)


@pytest.mark.parametrize("table", OWNED)
@pytest.mark.parametrize("change", ["UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}"], ids=["update", "delete"])
def test_no_row_of_another_tenant_can_be_changed_or_deleted(api, belongings, full, table, change):
    """Where the API's role may do such a thing at all, it reaches none of them."""
    right, _, _ = change.partition(" ")
    may = full.scalar(f"SELECT has_table_privilege('lockstep_api', '{table}', '{right}')")
    with nullcontext() if may else pytest.raises(ProgrammingError, match="permission denied"):
        assert api(f"{change.format(table)} WHERE tenant_id = :of", "ten_stranger", of=belongings["tenant"]) == 0


def test_no_key_of_another_tenant_can_be_changed(api, full, owner, stranger):
    take = "UPDATE api_keys SET key_sha256 = 'mine' WHERE tenant_id = :of"
    assert api(take, stranger.id, of=owner.id) == 0


def test_a_user_is_seen_where_he_is_a_member_and_his_password_nowhere(api, full, owner, stranger):
    count = "SELECT count(id) FROM users"
    assert (api(count, owner.id), api(count, stranger.id), api(count)) == (1, 0, 0)
    for sql in ("SELECT password_hash FROM users", "UPDATE users SET name = 'x'", "SELECT * FROM sign_in_tries"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            api(sql, owner.id)


def test_who_is_granted_a_concept_sees_it_through_the_functions_and_nobody_else_does(
    api, full, owner, friend, stranger
):
    seen = {
        tenant.id: [api(f"SELECT count(*) FROM granted_{what}()", tenant.id) for what in ("concepts", "versions")]
        for tenant in (owner, friend, stranger)
    }
    assert seen == {owner.id: [1, 1], friend.id: [1, 1], stranger.id: [0, 0]}
    assert api("SELECT count(*) FROM granted_concepts()") == 0
    lent = "SELECT count(*) FROM concepts WHERE tenant_id = :of"
    assert api(lent, owner.id, of=friend.id) == 0


def test_no_delivery_of_another_tenant_can_be_resent(api, full, owner, stranger):
    changed = "UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL"
    assert api(changed, stranger.id) == 0
    assert api(changed, owner.id) > 0


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
