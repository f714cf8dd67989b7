"""Who may import whom, who may build SQL, who may read the environment, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, name_of, parsed, python_files

SERVER = ("core", "api", "workers")
SQL_BUILDERS = frozenset({"select", "insert", "update", "delete", "text"})
SQL_HOMES = frozenset({"statements.py", "models.py", "migrations.py"})
LONGEST_FILE = 450


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_statements_models_and_migrations_build_sql():
    offenders = {
        f"{name_of(path)}:{call.lineno}"
        for path in python_files(*SERVER)
        if path.name not in SQL_HOMES
        for call in sql_built_in(parsed(path))
    }
    assert offenders == set()


def test_only_the_configuration_reads_the_environment():
    offenders = {
        f"{name_of(path)}:{line}"
        for path in python_files(*SERVER)
        if name_of(path) != "core/config.py"
        for line in environment_reads_in(parsed(path))
    }
    assert offenders == set()


@pytest.mark.parametrize(
    "source",
    [
        "from sqlalchemy import text\ntext('SELECT 1')",
        "from sqlalchemy.dialects.postgresql import insert as add\nadd(Job)",
        "import sqlalchemy as sa\nsa.select(Job)",
        "import sqlalchemy.sql\nsqlalchemy.sql.update(Job)",
    ],
)
def test_sql_is_recognised_under_any_name(source: str):
    assert len(list(sql_built_in(ast.parse(source)))) == 1


def test_a_method_that_is_called_like_a_statement_is_not_sql():
    assert not list(sql_built_in(ast.parse("import sqlalchemy as sa\npath.text()\nseen.update(more)")))


@pytest.mark.parametrize("source", ["import os\nos.environ['HOME']", "from os import getenv\ngetenv('HOME')"])
def test_reading_the_environment_is_recognised(source: str):
    assert list(environment_reads_in(ast.parse(source)))


def test_files_stay_short():
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*SERVER, "infra", "sdk", "tests")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def sql_built_in(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of SQLAlchemy's statement constructors, whatever they were imported as."""
    imported = set(names_imported(tree, "sqlalchemy"))
    constructors = {local for local, original in imported if original in SQL_BUILDERS}
    packages = {local for local, original in imported if original not in SQL_BUILDERS}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        match call.func:
            case ast.Name(id=name) if name in constructors:
                yield call
            case ast.Attribute(attr=name, value=value) if name in SQL_BUILDERS and root_name(value) in packages:
                yield call


def environment_reads_in(tree: ast.Module) -> Iterator[int]:
    """Lines that name ``os.environ``, ``os.getenv`` or what was imported from there."""
    reads = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in reads and root_name(node) == "os":
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "os" and reads & {alias.name for alias in node.names}:
            yield node.lineno


def names_imported(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Pairs of local and original name of everything imported from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield alias.asname or package, alias.name


def root_name(node: ast.expr) -> str | None:
    """The leftmost name of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
