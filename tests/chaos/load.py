"""Twenty customers who insist: each request under a key, repeated until it is answered; each webhook checked."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from standardwebhooks import WebhookVerificationError

from tests.integration.webhooks.receiver import Receiver, Request, receiving
from tests.serving import picture_bytes

TENANTS = 20
ENDS = ("succeeded", "failed", "canceled")
_EVENTS = [f"{kind}.{end}" for kind in ("generation", "training") for end in ENDS]
_MOST_OPEN = 4  # jobs of one tenant that have not ended, as far as it heard
_PAUSE_SECONDS = 2.5  # between two acts of a tenant, on average
_SHARES = {"generate": 70, "train": 8, "repeat": 9, "contradict": 4, "cancel": 6, "pause": 3}


@dataclass
class Tenant:
    """One customer, and what it was promised."""

    id: str
    key: str
    rng: random.Random
    secret: str = ""
    picture: str = ""
    asked: int = 0
    promises: dict[str, tuple[str, dict[str, Any], str]] = field(default_factory=dict)  # by key: route, body, job
    open: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)  # at any time: a pause that was given up may still arrive late


class Load:
    """What the tenants do and hear, in a thread with a loop of its own."""

    def __init__(self, url: str, keys: Mapping[str, str], *, seed: int) -> None:
        self._url = url
        self._tenants = {
            tenant: Tenant(tenant, key, random.Random(f"{seed} {k}")) for k, (tenant, key) in enumerate(keys.items())
        }
        self._thread = threading.Thread(target=self._run, name="load")
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self.begun = threading.Event()
        self.silent = threading.Event()  # nothing is asked any more, and nothing is paused
        self.contradictions: list[str] = []
        self.accepted: list[tuple[float, float]] = []  # when a job was asked for, and when it was promised
        self.acts: Counter[str] = Counter()
        self.heard: defaultdict[str, set[bytes]] = defaultdict(set)  # bodies by webhook-id
        self.deliveries = 0
        self.bad_signatures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more; go on listening."""
        self._stopping.set()

    def leave(self) -> None:
        """Stop listening."""
        self._stopping.set()
        self._leaving.set()
        self._thread.join()

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """What was asked for, by the job that was promised."""
        return {job: body for tenant in self._tenants.values() for _, body, job in tenant.promises.values()}

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # the run must end, and fail for it
            self.contradictions.append(f"the customers broke: {error!r}")
            self.begun.set()
            self.silent.set()
            raise

    async def _main(self) -> None:
        client = httpx.AsyncClient(base_url=self._url, timeout=8, verify=False)
        async with receiving(heed=self._hear) as receiver, client as http:
            self._http = http
            await asyncio.gather(*(self._settle_in(tenant, receiver) for tenant in self._tenants.values()))
            self.begun.set()
            await asyncio.gather(*map(self._live, self._tenants.values()))
            self.silent.set()
            await asyncio.to_thread(self._leaving.wait)

    async def _settle_in(self, tenant: Tenant, receiver: Receiver) -> None:
        body = {"url": receiver.url(f"/{tenant.id}"), "event_types": _EVENTS}
        tenant.secret = (await self._insist(tenant, "/v1/webhook_endpoints", json=body)).json()["signing_secret"]
        files = {"file": ("tom.png", picture_bytes())}
        tenant.picture = (await self._insist(tenant, "/v1/files", files=files)).json()["id"]

    async def _live(self, tenant: Tenant) -> None:
        while not self._stopping.is_set():
            act = tenant.rng.choices([*_SHARES], [*_SHARES.values()])[0]
            self.acts[act] += 1
            await getattr(self, f"_{act}")(tenant)
            await asyncio.sleep(tenant.rng.expovariate(1 / _PAUSE_SECONDS))
        for job in sorted(tenant.paused):
            await self._resume(tenant, job)

    async def _generate(self, tenant: Tenant) -> None:
        rng = tenant.rng
        body = {"prompt": f"a {rng.choice(('cat', 'dog', 'bear'))}", "model": "tiny", "steps": rng.randint(2, 40)}
        body |= {"n": rng.randint(1, 2), "seed": rng.randrange(1000), "size": rng.choice((16, 24)), "guidance": 3}
        await self._ask(tenant, "/v1/generations", body)

    async def _train(self, tenant: Tenant) -> None:
        body = {"concept": f"c-{tenant.asked}", "superclass": "cat", "images": [tenant.picture], "base_model": "tiny"}
        await self._ask(tenant, "/v1/trainings", body | {"steps": tenant.rng.randint(4, 30), "seed": 1})

    async def _ask(self, tenant: Tenant, route: str, body: dict[str, Any]) -> None:
        if len(tenant.open) >= _MOST_OPEN:
            return
        tenant.asked += 1
        key, asked_at = f"key-{tenant.asked}", time.time()
        answer = await self._insist(tenant, route, json=body, key=key)
        if answer.status_code != 201:
            self.contradictions.append(f"{route} {body} was refused: {answer.text}")
            return
        self.accepted.append((asked_at, time.time()))
        job = answer.json()["id"]
        tenant.promises[key] = route, body, job
        tenant.open.add(job)

    async def _repeat(self, tenant: Tenant) -> None:
        """Ask again under a key that was answered: the same job comes back."""
        if tenant.promises:
            key = tenant.rng.choice([*tenant.promises])
            route, body, job = tenant.promises[key]
            answer = await self._insist(tenant, route, json=body, key=key)
            if answer.status_code != 201 or answer.json()["id"] != job:
                self.contradictions.append(f"{key} of {tenant.id} was {job} and is now {answer.text}")

    async def _contradict(self, tenant: Tenant) -> None:
        """Ask for something else under a key that was answered: it is refused."""
        if tenant.promises:
            key = tenant.rng.choice([*tenant.promises])
            route, body, _ = tenant.promises[key]
            answer = await self._insist(tenant, route, json=body | {"seed": 1001}, key=key)
            if answer.status_code != 422:
                self.contradictions.append(f"another body under {key} of {tenant.id} was answered {answer.text}")

    async def _cancel(self, tenant: Tenant) -> None:
        if tenant.open:
            job = tenant.rng.choice(sorted(tenant.open))
            await self._insist(tenant, f"/v1/jobs/{job}/cancel")  # or it has ended

    async def _pause(self, tenant: Tenant) -> None:
        trainings = sorted(
            job for route, _, job in tenant.promises.values() if "trainings" in route and job in tenant.open
        )
        if trainings:
            job = tenant.rng.choice(trainings)
            tenant.paused.add(job)
            answer = await self._insist(tenant, f"/v1/trainings/{job}/pause")
            if answer.status_code == 200:
                await asyncio.sleep(tenant.rng.uniform(1, 4))
                await self._resume(tenant, job)

    async def _resume(self, tenant: Tenant, job: str) -> None:
        await self._insist(tenant, f"/v1/trainings/{job}/resume")  # or it has ended

    async def _insist(self, tenant: Tenant, path: str, *, key: str | None = None, **content: Any) -> httpx.Response:
        """Send a POST until it is answered, as a client that keeps its keys does."""
        headers = {"Authorization": f"Bearer {tenant.key}"} | ({"Idempotency-Key": key} if key else {})
        while not self._leaving.is_set():
            try:
                answer = await self._http.post(path, headers=headers, **content)
            except httpx.HTTPError:
                self.acts["request broken"] += 1
            else:
                if answer.status_code < 500 and "retry-after" not in answer.headers:
                    return answer
                self.acts[f"answered {answer.status_code}"] += 1
            await asyncio.sleep(tenant.rng.uniform(0.3, 1.5))
        raise TimeoutError(f"{path} was not answered before the end")

    def _hear(self, request: Request) -> None:
        tenant = self._tenants[request.path[1:]]
        self.deliveries += 1
        try:
            event = request.verified(tenant.secret)
        except WebhookVerificationError:
            self.bad_signatures += 1
            return
        self.heard[request.id].add(request.body)
        tenant.open.discard(event["data"]["id"])
