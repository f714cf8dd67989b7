"""The API's reference as a page: complete, and of this server alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from api.pages.reference import kind_of, marked
from tests.serving import Tenant


@pytest.fixture(scope="module")
def anyone(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, verify=False) as client:
        yield client


def test_every_route_and_every_body_is_there(anyone: httpx.Client):
    document = anyone.get("/openapi.json").json()
    told = anyone.get("/docs").text
    for path, operations in document["paths"].items():
        assert f"<code>{path}</code>" in told, path
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in told
    named = set(re.findall(r'href="#(\w+)"', told))
    assert "GenerationJob" in named
    assert named <= set(re.findall(r'id="(\w+)"', told)), "a link leads nowhere"


def test_it_loads_nothing_from_elsewhere_and_is_guarded_as_every_page_is(anyone: httpx.Client):
    response = anyone.get("/docs")
    assert "script-src 'self'" in response.headers["content-security-policy"]
    loaded = re.findall(r'<(?:script|img)[^>]*src="([^"]*)"|<link[^>]*href="([^"]*)"', response.text)
    assert loaded
    assert all((script or link).startswith("/static/") for script, link in loaded)


def test_bounds_and_defaults_are_told(anyone: httpx.Client):
    told = re.sub(r"\s+", " ", anyone.get("/docs").text)
    assert re.search(r"<dt><code>n</code></dt>.{0,300}at least 1; at most 16; by default <code>1</code>", told)


def test_the_framework_s_own_pages_are_gone(acme: Tenant):
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert acme.http.get(path).status_code == 404


def test_text_is_text_and_code_is_code():
    assert marked("`<tom>` & <b>") == "<code>&lt;tom&gt;</code> &amp; &lt;b&gt;"


def test_kinds_are_told_in_words():
    assert (
        kind_of({"type": "array", "items": {"$ref": "#/components/schemas/File"}}) == 'list of <a href="#File">File</a>'
    )
    assert kind_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}) == "integer or null"
    assert kind_of({"enum": ["png", "webp"]}) == "<code>png</code>, <code>webp</code>"
