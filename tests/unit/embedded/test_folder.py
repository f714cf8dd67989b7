from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.embedded.errors import AlreadyRunning, EmbeddedError
from core.embedded.folder import DataFolder


def test_credentials_are_made_once_and_are_different_in_every_folder(tmp_path: Path) -> None:
    first = DataFolder.open(tmp_path / "first").credentials()
    assert DataFolder.open(tmp_path / "first").credentials() == first
    assert DataFolder.open(tmp_path / "second").credentials() != first
    assert (tmp_path / "first" / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_credentials_that_an_older_release_did_not_know_are_added_and_the_others_stay(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data")
    known = vars(folder.credentials())
    file = folder.path / "credentials.json"
    file.write_text(json.dumps({name: value for name, value in known.items() if name != "url_secret"}))
    added = folder.credentials()
    assert vars(added) == known | {"url_secret": added.url_secret} != known
    assert folder.credentials() == added


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data")
    with folder.lock(), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"), folder.lock():
        pass
    with folder.lock():
        pass


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 12345, 12345)
    else:
        theirs = Path("/usr")
    with pytest.raises(EmbeddedError, match="belongs to another user"):
        DataFolder.open(theirs)


def test_nobody_but_the_owner_lists_the_folder(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "data")
    assert folder.path.stat().st_mode & 0o066 == 0
