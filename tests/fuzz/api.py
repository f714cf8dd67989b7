"""Sends whatever the OpenAPI document allows and forbids, alone and in sequences, and looks at every answer.

    python -m tests.fuzz.api --requests 20000 --seed 1 [--json FILE]

Schemathesis thinks the requests up; the API, Postgres and the object store are real, and a worker ends what is queued.
Exits with 1 when an answer was of the 500s, of a status or a media type that the document does not have, or not of its
schema, or when something was accepted that the document forbids.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.config import Settings
from core.errors import LockstepError
from core.jobs import execution
from core.tenants.provisioning import make_operator
from tests.benchmarks.report import Report, print_table
from tests.serving import LEASE, POOL, SCOPES, Deployment, Tenant, serving
from tests.stack import run_servers

_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "use_after_free",
)
# Whoever takes the key that all requests carry away from itself is answered 401 from then on: these have a run of
# their own, with a key of their own.
_DEADLY: Final = ("revoke_api_key", "rotate_api_key")
_CASES_AT_ONE: Final = 13_000  # about what all send with one example of each operation
_CASES_PER_EXAMPLE: Final = 100


@dataclass
class Outcome:
    """What was sent and answered, and what the generator found wrong."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)  # by who asked, and the status
    operations: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many were answered."""
        return self.statuses.total()


@dataclass(frozen=True)
class Role:
    """Somebody who asks, and how often compared with the first one."""

    name: str
    headers: Mapping[str, str]
    share: float
    only: tuple[str, ...] = ()


class Worker:
    """Ends what is queued, so that streams end and there is something to look at."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.wait(0.05):
            with self._deployment.sessions.begin() as session:
                jobs = execution.claim(
                    session, pool=POOL, worker_id="wrk_1", warm=frozenset(), room=8, cohort=4, lease=LEASE
                )
            for job in jobs:
                with contextlib.suppress(SQLAlchemyError, LockstepError, AssertionError):  # canceled meanwhile
                    self._deployment.succeed(job)


@contextmanager
def asked(settings: Settings) -> Iterator[tuple[str, list[Role]]]:
    """An API with something in it, and those who ask it."""
    settings = settings.model_copy(update={"requests_per_minute": 0, "jobs_per_minute": 0})
    with ExitStack() as stack:
        deployment = Deployment(settings)
        stack.callback(deployment.close)
        url = stack.enter_context(serving(settings))
        tenant = Tenant(deployment, url, "acme")
        stack.enter_context(tenant.http)
        with Session(deployment.owner) as session, session.begin():
            make_operator(session, tenant.id)
        tenant.trained("tom")
        keys = {name: deployment.new_key(tenant.id, scopes) for name, scopes in _SCOPES.items()}
        stack.enter_context(Worker(deployment))
        yield (
            url,
            [
                Role("an operator", _bearing(keys["everything"]), 1),
                Role("whoever ends his own key", _bearing(keys["keys"]), 0.2, only=_DEADLY),
                Role("a key that only reads", _bearing(keys["reading"]), 0.2),
                Role("nobody", {}, 0.1),
            ],
        )


_SCOPES: Final = {"everything": SCOPES, "keys": frozenset({"admin"}), "reading": frozenset({"read"})}


def _bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def fuzz(url: str, roles: list[Role], *, examples: int, seed: int, phases: str = "") -> Outcome:
    """Ask as each of them; ``examples`` of each operation at most, as the first one."""
    outcome = Outcome()
    for role in roles:
        _ask(outcome, url, role, examples=max(1, round(examples * role.share)), seed=seed, phases=phases)
    return outcome


def _ask(outcome: Outcome, url: str, role: Role, *, examples: int, seed: int, phases: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told, events = Path(folder, "report.json"), Path(folder, "events.ndjson")
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
            "--checks", ",".join(_CHECKS), "--max-examples", str(examples), "--seed", str(seed),
            # One thread: CPython 3.11's parser, which Hypothesis calls, miscounts its depth with two.
            "--workers", "1", "--continue-on-failure", "--no-shrink", "--request-timeout", "60",
            "--generation-database", "none", "--generation-with-security-parameters", "false", "--no-color",
            "--report", "json,ndjson", "--report-json-path", str(told), "--report-ndjson-path", str(events),
        ]  # fmt: skip
        for name, value in role.headers.items():
            command += ["--header", f"{name}: {value}"]
        for name in _DEADLY:
            command += ["--include-operation-id" if name in role.only else "--exclude-operation-id", name]
        if phases:
            command += ["--phases", phases]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not told.exists():
            raise RuntimeError(ran.stdout + ran.stderr)
        report = json.loads(told.read_text())
        outcome.operations = max(outcome.operations, report["operations"]["tested"])
        outcome.statuses.update((role.name, status) for status in _statuses(events))
        if report["failures"] or report["errors"]:
            outcome.wrong.append(f"as {role.name}:\n{ran.stdout}")


def _statuses(events: Path) -> Iterator[str]:
    """The status of every answer."""
    with events.open() as lines:
        for line in lines:
            finished: dict[str, Any] = json.loads(line).get("ScenarioFinished", {})
            for interaction in finished.get("recorder", {}).get("interactions", {}).values():
                answer = interaction["response"]
                yield "none" if answer is None else str(answer["status_code"])


def main() -> None:
    """Ask, look and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.api", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and targets here")
    given = parser.parse_args()
    examples = max(1, (given.requests - _CASES_AT_ONE) // _CASES_PER_EXAMPLE)
    with run_servers() as servers, asked(servers.new_settings()) as (url, roles):
        outcome = fuzz(url, roles, examples=examples, seed=given.seed)
    tell(outcome, wanted=given.requests).finish(given.json)
    sys.exit(bool(outcome.wrong))


def tell(outcome: Outcome, *, wanted: int) -> Report:
    """Print what was answered to whom; the figures."""
    statuses = sorted({status for _, status in outcome.statuses})
    names = list(dict.fromkeys(name for name, _ in outcome.statuses))
    rows: list[tuple[str | int, ...]] = [
        (name, *(outcome.statuses[name, status] for status in statuses)) for name in names
    ]
    print_table("Answers by status", ("asked by", *statuses), rows)
    for found in outcome.wrong:
        print(found)
    report = Report()
    report.add("requests", outcome.requests)
    report.add("operations", outcome.operations)
    report.add("answers of the 500s", sum(n for (_, status), n in outcome.statuses.items() if status >= "5"))
    report.add("runs that found something", len(outcome.wrong))
    report.expect("requests", ">=", wanted)
    report.expect("answers of the 500s", "<=", 0)
    report.expect("runs that found something", "<=", 0)
    return report


if __name__ == "__main__":
    main()
