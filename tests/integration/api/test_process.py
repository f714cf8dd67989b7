"""``python -m api`` as a process."""

from __future__ import annotations

import signal
import subprocess
import sys

import httpx

from core.config import child_environment
from core.embedded.ports import find_free
from tests.serving import Deployment, Tenant
from tests.waiting import until


def answers(url):
    try:
        return httpx.get(f"{url}/readyz", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def test_it_serves_what_its_environment_says_and_stops_when_told_although_a_stream_is_open(deployment: Deployment):
    (port,) = find_free(1)
    settings = deployment.settings.model_copy(update={"port": port})
    server = subprocess.Popen([sys.executable, "-m", "api"], env=child_environment(settings))
    try:
        until(lambda: answers(settings.base_url))
        tenant = Tenant(deployment, settings.base_url, "acme")
        with tenant.http:
            job_id = tenant.generate()["id"]
            with tenant.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
                lines = response.iter_lines()
                next(lines)
                server.send_signal(signal.SIGTERM)
                assert server.wait(timeout=8) == -signal.SIGTERM  # it cleans up, then lets the signal end it
    finally:
        server.kill()
        server.wait()
