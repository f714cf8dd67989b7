from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lockstep.cli import app


@pytest.mark.parametrize("typed", ["", "low", "0.4,,0.5", "0.4;0.5", "nan,0.5", "0.4,inf"])
def test_values_of_a_dial_that_are_no_numbers_are_refused_before_anything_is_sent(typed: str, tmp_path: Path):
    command = ["sweep", "<tom>", "--concept", "tom", "--out", str(tmp_path), "--gate-bias", typed]
    environment = {"LOCKSTEP_API_KEY": "k", "LOCKSTEP_URL": "http://nowhere.invalid"}
    answer = CliRunner().invoke(app, command, env=environment)
    assert (answer.exit_code, "0.4,0.5,0.6" in answer.output) == (2, True)
