"""Compares all figures that operators are told with the jobs themselves, for as long as is wanted.

python -m tests.integration.operations [--looks 200] [--seed 1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from core.config import Settings
from core.embedded.postgres import API, OPERATOR, WORKER
from tests.integration.operations.ground import under_load
from tests.serving import Deployment
from tests.stack import run_servers


def main() -> None:
    """Look so often; the first figure that is off ends it with an error."""
    parser = argparse.ArgumentParser(prog="tests.integration.operations", description=__doc__)
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    looks = range(given.looks)
    with run_servers() as servers, tempfile.TemporaryDirectory() as folder:
        url = servers.new_database()
        roles = {"api": API, "worker": WORKER, "operator": OPERATOR}
        dsns = {f"{name}_database_url": url.set(username=role).render_as_string() for name, role in roles.items()}
        deployment = Deployment(
            Settings.model_validate(
                {
                    "database_url": url.render_as_string(),
                    "broker_url": servers.emptied_broker(),
                    "data_dir": servers.folder.path,
                    "device": "cpu",
                    "webhook_allow": ("127.0.0.0/8",),
                    **dsns,
                    **servers.new_bucket(),
                }
            )
        )
        began = time.monotonic()
        with under_load(deployment, Path(folder) / "maintain.log", given.seed) as watch:
            watch.look(
                given.looks,
                maintainer_restarts=looks[7::10],
                api_restarts=looks[13::20],
                everything_restarts=looks[4::15],
                restart_servers=servers.restart,
            )
        workers, attempts, jobs = (
            deployment.scalar(f"SELECT count(*) FROM {table}") for table in ("workers", "job_attempts", "jobs")
        )
        took = time.monotonic() - began
        print(f"{given.looks} looks in {took:.0f} s: all figures equal.")
        print(f"{jobs} jobs, {attempts} attempts, {workers} workers.")
        deployment.close()


if __name__ == "__main__":
    main()
