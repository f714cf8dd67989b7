"""One self test: what a customer does, by the API, from the first request to the webhook, each stage timed.

A stage that fails says what may be done about it; those after it are left out. Everything has its time limit.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook, WebhookVerificationError

from core.ids import new_id
from core.selftest import records
from core.selftest.records import Stage
from core.tenants.provisioning import create_key, create_tenant
from core.webhooks.models import WebhookEndpoint
from core.webhooks.signing import new_secret
from workers.maintain.listener import Listener

_HTTP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2
_SCOPES: Final = frozenset({"generate", "train", "read"})  # who trains may upload
_EVENT: Final = "generation.succeeded"
_ELSEWHERE: Final = "If the deployment reaches it by another address, set LOCKSTEP_INTERNAL_URL."
_PROMPT: Final = "a cat"
# A PNG of eight by eight pixels.
_PICTURE: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGN8nWHCgA0wYRUdtBIANjgBlzSlHJAAAAAASUVORK5CYII="
)


class StageFailed(Exception):
    """A stage did not go as it should; the message is for operators."""


@dataclass(frozen=True)
class Patience:
    """How long stages may take, in seconds."""

    generation: float = 120.0  # its wait included
    webhook: float = 20.0


PATIENCE: Final = Patience()


@dataclass
class Trial:
    """A trial under way. ``tell`` hears of each stage that has ended."""

    sessions: sessionmaker[Session]
    test_id: str
    url: str
    listener: Listener
    tell: Callable[[list[Stage]], None]
    stop: threading.Event  # set: nobody waits for it any more
    patience: Patience = PATIENCE
    stages: list[Stage] = field(default_factory=list)
    tenant_id: str = ""
    _secret: str = ""
    _client: httpx.Client = field(default_factory=httpx.Client)
    _job: dict[str, Any] = field(default_factory=dict)

    def run(self) -> list[Stage]:
        """Go through the stages."""
        try:
            for name, stage in (
                ("database", self._make_tenant),
                ("api", self._ask_the_api),
                ("storage", self._store_a_picture),
                ("submission", self._submit),
                ("generation", self._wait_for_the_job),
                ("result", self._fetch_the_picture),
                ("webhook", self._hear_of_it),
            ):
                self._carry_out(name, stage)
        finally:
            self._client.close()
        return self.stages

    def _carry_out(self, name: str, stage: Callable[[], None]) -> None:
        if any(done.state != "ok" for done in self.stages):
            self._add(Stage(name, "skipped", 0.0))
            return
        started, error = time.monotonic(), None
        try:
            stage()
        except StageFailed as failed:
            error = str(failed)
        except httpx.TransportError as failed:
            error = f"The API does not answer at {self.url} ({failed or type(failed).__name__}). {_ELSEWHERE}"
        self._add(Stage(name, "ok" if error is None else "failed", round(time.monotonic() - started, 3), error))

    def _add(self, stage: Stage) -> None:
        self.stages.append(stage)
        self.tell(self.stages)

    def _make_tenant(self) -> None:
        self._secret = new_secret()
        with self.sessions.begin() as session:
            self.tenant_id = create_tenant(session, "Self test").id
            records.keep_subject(session, self.test_id, self.tenant_id)
            key = create_key(session, self.tenant_id, "self test", _SCOPES)
            # Not by the API, which lets nobody listen on a loopback.
            session.add(
                WebhookEndpoint(
                    id=new_id("we"),
                    tenant_id=self.tenant_id,
                    name="Self test",
                    url=self.listener.url,
                    event_types=[_EVENT],
                    secret=self._secret,
                )
            )
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=_HTTP_SECONDS)

    def _ask_the_api(self) -> None:
        self._json("GET", "/healthz")
        models = self._json("GET", "/v1/models")["data"]
        if not models:
            raise StageFailed("There is no model to draw with: LOCKSTEP_MODELS names those to register.")

    def _store_a_picture(self) -> None:
        stored = self._json("POST", "/v1/files", files={"file": ("selftest.png", _PICTURE)})
        self._content(stored["id"])

    def _submit(self) -> None:
        self._job = self._json("POST", "/v1/generations", json={"prompt": _PROMPT, "n": 1, "priority": "high"})

    def _wait_for_the_job(self) -> None:
        until = time.monotonic() + self.patience.generation
        while self._job["state"] in ("queued", "running"):
            if time.monotonic() > until:
                raise StageFailed(self._why())
            self._rest()
            self._job = self._json("GET", f"/v1/jobs/{self._job['id']}")
        if self._job["state"] != "succeeded":
            error = self._job["error"] or {}
            raise StageFailed(f"The job {self._job['state']}: {error.get('code')}: {error.get('message')}")

    def _why(self) -> str:
        """What the queue says of a job that takes too long."""
        told = self._json("GET", f"/v1/jobs/{self._job['id']}/why")
        helps = f" What would help: {told['unblocked_by']}" if told.get("unblocked_by") else ""
        return f"Not done within {self.patience.generation:.0f} s, {told['reason']}: {told['detail']}{helps}"

    def _fetch_the_picture(self) -> None:
        (image,) = self._job["result"]["images"]
        self._content(image["file_id"])

    def _hear_of_it(self) -> None:
        until = time.monotonic() + self.patience.webhook
        while self.listener.heard.empty():
            if time.monotonic() > until:
                with self.sessions.begin() as session:
                    how = records.how_delivered(session, self.tenant_id)
                raise StageFailed(f"No webhook within {self.patience.webhook:.0f} s: {how}.")
            self._rest()
        heard = self.listener.heard.get()
        try:
            Webhook(self._secret).verify(heard.body, heard.headers)
        except WebhookVerificationError as wrong:
            raise StageFailed(f"The webhook's signature is wrong: {wrong}.") from wrong
        told = json.loads(heard.body)
        if (told["type"], told["data"]["id"]) != (_EVENT, self._job["id"]):
            raise StageFailed(f"The webhook told of {told['type']} of {told['data'].get('id')}.")

    def _rest(self) -> None:
        if self.stop.wait(_LOOK_SECONDS):
            raise StageFailed("The maintainer was told to stop.")

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._answer(method, path, **request).json()
        return answer

    def _content(self, file_id: str) -> None:
        if not self._answer("GET", f"/v1/files/{file_id}/content").content.startswith(b"\x89PNG"):
            raise StageFailed(f"The content of {file_id} is no PNG.")

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        response = self._client.request(method, path, **request)
        if response.is_success:
            return response
        known = response.headers.get("content-type", "").startswith("application/problem+json")
        told = response.json() if known else {"code": "unknown", "detail": response.text[:200]}
        raise StageFailed(f"{method} {path} answered {response.status_code}, {told['code']}: {told.get('detail')}")
