"""Settings travel to other processes as variables and to the operator's commands in a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from core.config import Settings, child_environment
from core.embedded.folder import DataFolder
from core.embedded.stack import running_settings, write_running

_SETTINGS = Settings(
    database_url="postgresql+psycopg://lockstep_owner@/lockstep?host=%2Ftmp%2Fa%20folder",
    s3_secret_key=SecretStr("it's $ecret"),
    webhook_allow=("127.0.0.0/8", "10.0.0.0/8"),
    data_dir=Path("/srv/a folder"),
    port=8080,
)


def test_a_child_gets_what_was_set_and_keeps_its_own_defaults() -> None:
    environment = _SETTINGS.environment()
    assert environment == {
        "LOCKSTEP_DATABASE_URL": _SETTINGS.database_url,
        "LOCKSTEP_S3_SECRET_KEY": "it's $ecret",
        "LOCKSTEP_WEBHOOK_ALLOW": "127.0.0.0/8,10.0.0.0/8",
        "LOCKSTEP_DATA_DIR": "/srv/a folder",
        "LOCKSTEP_PORT": "8080",
    }
    assert child_environment(_SETTINGS).items() >= environment.items()
    assert "PATH" in child_environment(_SETTINGS)


def test_a_setting_of_none_is_left_out() -> None:
    assert Settings(s3_endpoint=None).environment() == {}


def test_the_operators_commands_find_every_setting_of_the_stack_that_runs(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path)
    write_running(_SETTINGS, folder)
    found = running_settings(Settings(data_dir=tmp_path))
    assert found == _SETTINGS.model_copy(update={"data_dir": tmp_path})
    assert folder.running_file.stat().st_mode & 0o777 == 0o600


def test_a_setting_that_is_given_wins_over_the_stack_that_runs(tmp_path: Path) -> None:
    write_running(_SETTINGS, DataFolder.open(tmp_path))
    assert running_settings(Settings(data_dir=tmp_path, port=9000)).port == 9000


def test_without_a_running_stack_the_given_settings_stand(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path)
    assert running_settings(given) is given
