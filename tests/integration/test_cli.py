"""``lockstepd``: the operator's commands, against a deployment named by the environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from typer.testing import CliRunner, Result

from core.cli import app, main
from core.config import Settings
from core.db.engine import sync_engine
from core.members import passwords
from core.tenants import keys


@pytest.fixture
def deployment(postgres_url: URL, tmp_path: Path) -> dict[str, str]:
    return {"LOCKSTEP_DATABASE_URL": postgres_url.render_as_string(), "LOCKSTEP_DATA_DIR": str(tmp_path)}


def _run(deployment: dict[str, str], *arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env=deployment)
    assert result.exit_code == 0, result.output
    return result


def _find(pattern: str, result: Result) -> str:
    found = re.search(pattern, result.stdout)
    assert found is not None, result.output
    return found.group(1)


def _tenant_of(key: str, url: URL) -> str | None:
    engine = sync_engine(url)
    with engine.connect() as connection:
        statement = text("SELECT tenant_id FROM api_keys WHERE key_sha256 = :digest")
        found = connection.execute(statement, {"digest": keys.digest(key)}).scalar()
    engine.dispose()
    return found


def test_creating_a_tenant_prints_its_id_and_a_key_that_works(deployment: dict[str, str], postgres_url: URL) -> None:
    result = _run(deployment, "admin", "create-tenant", "acme")
    tenant, key = _find(r"tenant: (\S+)", result), _find(r"key: (\S+)", result)
    assert keys.is_well_formed(key)
    assert _tenant_of(key, postgres_url) == tenant


def test_a_tenant_can_get_another_key(deployment: dict[str, str], postgres_url: URL) -> None:
    tenant = _find(r"tenant: (\S+)", _run(deployment, "admin", "create-tenant", "acme"))
    key = _find(r"key: (\S+)", _run(deployment, "admin", "create-key", tenant))
    assert _tenant_of(key, postgres_url) == tenant


def test_what_the_operator_does_to_a_tenant_is_written_down(deployment: dict[str, str], postgres_url: URL) -> None:
    told = _run(deployment, "admin", "create-tenant", "acme")
    tenant, key = _find(r"tenant: (\S+)", told), _find(r"key: (\S+)", told)
    for command in (["create-key", tenant], ["make-operator", tenant], ["set-safety", tenant, "flag"]):
        _run(deployment, "admin", *command)
    _run(deployment, "admin", "set-retention", tenant, "--jobs", "7")
    engine = sync_engine(postgres_url)
    with engine.connect() as connection:
        statement = text("SELECT actor, action, after FROM audit_log WHERE tenant_id = :id ORDER BY created_at, id")
        rows = connection.execute(statement, {"id": tenant}).all()
    engine.dispose()
    assert {row.actor for row in rows} == {"lockstepd"}
    assert [row.action for row in rows] == ["tenant.created", "api_key.created", *["tenant.changed"] * 3]
    assert [row.after for row in rows[2:]] == [
        {"is_operator": True},
        {"safety": "flag"},
        {"keep_jobs_days": 7, "keep_events_days": None, "keep_files_days": None},
    ]
    assert key not in str(rows)


def test_a_tenant_gets_a_user_whose_password_is_asked_for(deployment: dict[str, str], postgres_url: URL) -> None:
    tenant = _find(r"tenant: (\S+)", _run(deployment, "admin", "create-tenant", "acme"))
    command = ["admin", "create-user", tenant, "Olga@example.com", "--role", "admin"]
    engine, ids = sync_engine(postgres_url), set()
    for password in ("correct horse", "battery staple"):
        told = CliRunner().invoke(app, command, env=deployment, input=f"{password}\n{password}\n")
        ids.add(_find(r"user: (\S+)", told))
        assert password not in told.output
        with engine.connect() as connection:
            statement = text("SELECT u.password_hash, m.role FROM users u JOIN memberships m ON m.user_id = u.id")
            row = connection.execute(statement).one()
        assert row.role == "admin"
        assert passwords.matches(row.password_hash, password)
    engine.dispose()
    assert len(ids) == 1
    short = CliRunner().invoke(app, command, env=deployment, input="short\nshort\n")
    assert short.exit_code == 1


def test_a_tenant_is_exported_and_deleted(
    deployment: dict[str, str], object_store_settings: dict[str, Any], tmp_path: Path
) -> None:
    deployment |= Settings.model_validate(object_store_settings).environment()
    tenant = _find(r"tenant: (\S+)", _run(deployment, "admin", "create-tenant", "acme"))
    told = _run(deployment, "admin", "export-tenant", tenant, str(tmp_path / "acme.zip"))
    assert "files: 0" in told.stderr
    assert b'"name": "acme"' in ZipFile(tmp_path / "acme.zip").read("tables/tenants.jsonl")
    refused = CliRunner().invoke(app, ["admin", "delete-tenant", tenant], env=deployment, input="n\n")
    assert refused.exit_code == 1
    assert "deleted: 1 rows" in _run(deployment, "admin", "delete-tenant", tenant, "--yes").stdout
    gone = CliRunner().invoke(app, ["admin", "create-key", tenant], env=deployment)
    assert gone.exit_code == 1


def test_a_tenant_gets_a_safety_policy(deployment: dict[str, str], postgres_url: URL) -> None:
    tenant = _find(r"tenant: (\S+)", _run(deployment, "admin", "create-tenant", "acme"))
    engine = sync_engine(postgres_url)
    for policy in ("block", "flag", "off"):
        told = _run(deployment, "admin", "set-safety", tenant, policy)
        assert _find(r"safety: (\S+)", told) == policy
        assert ("LOCKSTEP_SAFETY_CHECKER" in told.stderr) == (policy != "off")
        with engine.connect() as connection:
            statement = text("SELECT safety FROM tenants WHERE id = :id")
            assert connection.execute(statement, {"id": tenant}).scalar() == policy
    engine.dispose()


def test_a_tenant_gets_times_of_its_own(deployment: dict[str, str], postgres_url: URL) -> None:
    tenant = _find(r"tenant: (\S+)", _run(deployment, "admin", "create-tenant", "acme"))
    told = _run(deployment, "admin", "set-retention", tenant, "--jobs", "7", "--files", "0")
    assert _find(r"kept: (.*)", told) == "jobs 7 days, events as usual, files for ever"
    engine = sync_engine(postgres_url)
    with engine.connect() as connection:
        statement = text("SELECT keep_jobs_days, keep_events_days, keep_files_days FROM tenants WHERE id = :id")
        assert tuple(connection.execute(statement, {"id": tenant}).one()) == (7, None, 0)
    engine.dispose()


def test_migrating_a_database_that_is_up_to_date_does_nothing(deployment: dict[str, str]) -> None:
    assert _run(deployment, "migrate").output == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["admin", "create-key", "ten_unknown"], "No tenant ten_unknown"),
        (["admin", "set-safety", "ten_unknown", "block"], "No tenant ten_unknown"),
        (["admin", "create-tenant", "acme"], "start `lockstepd up`, or set LOCKSTEP_DATABASE_URL"),
    ],
)
def test_what_an_operator_can_act_on_is_a_message_and_no_traceback(
    deployment: dict[str, str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "LOCKSTEP_DATABASE_URL" in message:
        deployment |= {"LOCKSTEP_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/lockstep"}
    for name, value in deployment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["lockstepd", *arguments])
    with pytest.raises(SystemExit, match="1"):
        main()
    output = capsys.readouterr().err
    assert message in output
    assert "Traceback" not in output


def test_the_command_line_needs_no_part_of_the_system() -> None:
    check = "import sys, core.cli; print(sorted({'torch', 'celery', 'fastapi', 'redis', 'boto3'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
