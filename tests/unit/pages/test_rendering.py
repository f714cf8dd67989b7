from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import UndefinedError
from starlette.testclient import TestClient

from api.pages import rendering
from api.pages.headers import PageHeaders
from api.pages.rendering import STATIC_FOLDER, LastingFiles, page, static_url


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (None, "–"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float | None, told: str):
    assert rendering.span(seconds) == told
    if seconds is not None:
        assert rendering.span(timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("count", "told"), [(512, "512 B"), (31_048, "31.0 kB"), (1.2e9, "1.2 GB"), (2e16, "20000.0 TB"), (None, "–")]
)
def test_bytes_are_told_in_decimal_units(count: float | None, told: str):
    assert rendering.size(count) == told


def test_a_moment_is_told_in_utc_to_the_second():
    assert rendering.moment(datetime(2026, 11, 23, 4, 5, 6, 789, tzinfo=UTC)) == "2026-11-23 04:05:06"


def app() -> FastAPI:
    made = FastAPI()
    made.mount("/static", LastingFiles(directory=STATIC_FOLDER))
    made.add_middleware(PageHeaders)

    @made.get("/page")
    def show(request: Request) -> HTMLResponse:
        return page(request, "base.html")

    @made.get("/data")
    def data() -> dict[str, str]:
        return {}

    return made


def test_every_page_carries_a_policy_without_inline_scripts_or_other_hosts():
    with TestClient(app()) as client:
        shown = client.get("/page")
        policy = shown.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert shown.headers["cache-control"] == "no-store"
        assert "content-security-policy" not in client.get("/data").headers


def test_the_frame_has_no_inline_script_style_or_handler():
    with TestClient(app()) as client:
        text = client.get("/page").text
    assert "<script>" not in text
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick" not in text


def test_static_files_are_kept_by_browsers_under_an_address_that_changes_with_them():
    with TestClient(app()) as client:
        lasting = client.get(static_url("style.css"))
        assert "immutable" in lasting.headers["cache-control"]
        assert "cache-control" not in client.get("/static/style.css").headers
        assert client.get("/static/../rendering.py").status_code == 404


def test_a_template_that_names_what_it_was_not_given_is_an_error():
    template = rendering._TEMPLATES.from_string("{{ nothing.at.all }}")
    with pytest.raises(UndefinedError):
        template.render()


def test_what_a_page_is_given_is_escaped():
    template = rendering._TEMPLATES.from_string("{{ name }}")
    assert template.render(name="<script>") == "&lt;script&gt;"
