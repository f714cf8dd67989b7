"""A deployment under load whose parts are restarted, and the figures that it tells compared all the time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from sqlalchemy.orm import Session

from core.tenants.provisioning import make_operator
from tests.integration.maintain.test_process import MODELS, maintaining
from tests.integration.operations.checks import check
from tests.integration.operations.load import Load
from tests.integration.operations.pinned import HEADERS, Observatory
from tests.serving import Deployment, Tenant, serving
from tests.waiting import until

_LOOK_EVERY = 0.5  # seconds


class Running:
    """The API and the maintainer, each of which can be ended without a word and started again."""

    def __init__(self, deployment: Deployment, observatory: Observatory, log: Path) -> None:
        self._settings = deployment.settings.model_copy(update={"models": MODELS})
        self._observatory = observatory
        self._log = log
        self._api, self._maintainer = ExitStack(), ExitStack()  # what is closed can be entered again
        self.url = ""

    def restart_api(self) -> None:
        self._api.close()
        self.url = self._api.enter_context(serving(self._settings, adapt=self._observatory.adapt))

    def restart_maintainer(self) -> None:
        self._maintainer.close()
        self._maintainer.enter_context(maintaining(self._settings, self._log))
        until(lambda: b"leadership.won" in self._log.read_bytes())

    def restart_everything(self, restart_servers: Callable[[], None]) -> None:
        self.close()
        restart_servers()
        self.restart_maintainer()
        self.restart_api()

    def close(self) -> None:
        self._api.close()
        self._maintainer.close()


@contextmanager
def under_load(deployment: Deployment, log: Path, seed: int) -> Iterator[Watch]:
    """Three customers, one of whom listens to webhooks; an operator who turns levers; two workers that die often."""
    with ExitStack() as held:
        observatory = Observatory(deployment.settings)
        held.callback(observatory.close)
        running = Running(deployment, observatory, log)
        held.callback(running.close)
        running.restart_maintainer()
        running.restart_api()
        *customers, operator = (Tenant(deployment, running.url, name) for name in ("ann", "bob", "cid", "operators"))
        for tenant in (*customers, operator):
            held.enter_context(tenant.http)
        with Session(deployment.owner) as session, session.begin():
            make_operator(session, operator.id)
        body = {"url": "http://127.0.0.1:9/nobody", "name": "nobody"}
        assert customers[0].http.post("/v1/webhook_endpoints", json=body).status_code == 201
        load = Load(deployment, lambda: running.url, seed)
        held.callback(load.stop)
        for customer in customers:
            customer.generate()
            load.customer(customer)
        load.operator(operator, customers)
        for _ in range(2):
            load.worker()
        yield Watch(running, observatory, operator, random.Random(seed))


class Watch:
    """An operator who looks, again and again."""

    def __init__(self, running: Running, observatory: Observatory, operator: Tenant, chance: random.Random) -> None:
        self._running = running
        self._observatory = observatory
        self._operator = operator
        self._chance = chance

    def look(
        self,
        times: int,
        *,
        maintainer_restarts: Sequence[int],
        api_restarts: Sequence[int],
        everything_restarts: Sequence[int] = (),
        restart_servers: Callable[[], None] = lambda: None,
    ) -> None:
        """Compare all figures so many times; before these looks the maintainer, the API, or everything starts again."""
        for number in range(times):
            if number in everything_restarts:
                self._running.restart_everything(restart_servers)
            if number in maintainer_restarts:
                self._running.restart_maintainer()
            if number in api_restarts:
                self._running.restart_api()
            with self._operator.client() as client:
                client.base_url = httpx.URL(self._running.url)
                client.headers.update(HEADERS)
                check(client, self._observatory, self._chance)
            time.sleep(_LOOK_EVERY)
