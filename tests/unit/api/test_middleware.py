"""The limit on bodies, without a server around it."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Request

from api import errors
from api.middleware import BodyLimit, RequestContext
from core.tracing import OFF


@pytest.fixture
async def client():
    app = FastAPI()
    errors.install(app, lambda *_: None)

    @app.post("/")
    async def size(request: Request) -> int:
        return len(await request.body())

    app.add_middleware(BodyLimit, max_bytes=10)
    app.add_middleware(RequestContext, tracing=OFF)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        yield client


async def chunks(*sizes):
    for size in sizes:
        yield b"x" * size


@pytest.mark.parametrize("sizes", [(), (10,), (5, 5)])
async def test_a_body_within_the_limit_passes(client, sizes):
    assert (await client.post("/", content=chunks(*sizes))).json() == sum(sizes)


@pytest.mark.parametrize("sizes", [(11,), (5, 5, 1)])
async def test_a_longer_one_is_refused_whether_it_says_so_or_not(client, sizes):
    for content in (chunks(*sizes), b"x" * sum(sizes)):
        response = await client.post("/", content=content)
        assert (response.status_code, response.json()["code"]) == (413, "too-large")
        assert response.json()["instance"] == f"urn:request:{response.headers['x-request-id']}"


async def test_a_length_that_is_no_number_is_left_to_what_arrives(client):
    response = await client.post("/", content=chunks(11), headers={"Content-Length": "ten"})
    assert response.status_code == 413
