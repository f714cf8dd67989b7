"""The whole system as a newcomer starts it: ``lockstepd up`` in a folder of its own, spoken to from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from core.embedded.ports import find_free
from lockstep import Lockstep
from tests.waiting import until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RunningStack:
    """A stack that answers at ``url``; ``environment`` points every command of ours at it."""

    url: str
    data_dir: Path
    environment: dict[str, str]

    def lockstepd(self, *arguments: str) -> str:
        """What an operator's command prints."""
        command = [sys.executable, "-m", "core.cli", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout

    def new_key(self, tenant: str) -> str:
        """The API key of a new tenant."""
        return self.lockstepd("admin", "create-tenant", tenant).split("key: ")[1].strip()


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """One stack for all acceptance tests, with the bundled model and trainings of a few steps."""
    with stack_folder() as folder, running(folder / "data", str(_hasty_model(folder / "storybook"))) as stack:
        yield stack


@contextmanager
def stack_folder() -> Iterator[Path]:
    """A folder that a stack may keep its data in.

    Not pytest's own temporary folder: its mode keeps out the user as whom root's Postgres runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="lockstep-acceptance-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def api_key(stack: RunningStack) -> str:
    """The key of a tenant for tests that do not mind what others have left there."""
    return stack.new_key("acme")


@pytest.fixture
def lockstep(stack: RunningStack, api_key: str) -> Iterator[Lockstep]:
    """A client of that tenant."""
    with Lockstep(base_url=stack.url, api_key=api_key) as client:
        yield client


@contextmanager
def running(data_dir: Path, *models: str, **variables: str) -> Iterator[RunningStack]:
    """A stack with these models (folders or hub ids), and with further variables in its environment."""
    port = find_free()[0]
    environment = os.environ | {
        "LOCKSTEP_DATA_DIR": str(data_dir),
        "LOCKSTEP_PORT": str(port),
        "LOCKSTEP_MODELS": ",".join(models),
        "LOCKSTEP_DEVICE": "cpu",
        "LOCKSTEP_WEBHOOK_ALLOW": "127.0.0.0/8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }
    stack = RunningStack(f"http://127.0.0.1:{port}", data_dir, environment)
    command = [sys.executable, "-m", "core.cli", "up"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(_is_ready(stack.url, process), seconds=120)
            yield stack
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def _is_ready(url: str, process: subprocess.Popen[str]) -> Callable[[], bool]:
    def check() -> bool:
        assert process.poll() is None, process.communicate()[1]
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    return check


def _hasty_model(folder: Path) -> Path:
    """The bundled model, except that it learns and draws in few steps unless a request says otherwise."""
    bundled = ROOT / "models" / "storybook"
    folder.mkdir()
    for entry in bundled.iterdir():
        if entry.name != "lockstep.json":
            (folder / entry.name).symlink_to(entry)
    facts = json.loads((bundled / "lockstep.json").read_text())
    facts |= {"default_steps": 2, "perfusion": {**facts.get("perfusion", {}), "steps": 6}}
    (folder / "lockstep.json").write_text(json.dumps(facts))
    return folder
