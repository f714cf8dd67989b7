"""Real pages in a real Chromium, served by a real API on real Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy.orm import Session

from core.config import Settings
from core.members.roles import Role
from core.tenants.provisioning import make_operator
from tests.integration.api.members import PASSWORD, put_user
from tests.serving import Deployment, Tenant, serving

WINDOWS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's own; `infra/browser.sh` installs it where that is allowed.

    Gone with its module: while Playwright runs, nothing else in this process can run an event loop.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium: see infra/browser.sh")
    with sync_playwright() as playwright:
        # Its sandbox does not start for root.
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def deployment(stack_settings: Settings) -> Iterator[Deployment]:
    made = Deployment(stack_settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(deployment: Deployment) -> Iterator[str]:
    with serving(deployment.settings) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def email(deployment: Deployment, url: str) -> str:
    """The address of somebody who runs the deployment."""
    tenant = Tenant(deployment, url, "operators")
    tenant.http.close()
    with Session(deployment.owner) as session, session.begin():
        make_operator(session, tenant.id)
    put_user(tenant, Role.OWNER, "operator@example.com")
    return "operator@example.com"


@pytest.fixture
def acme(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that nothing has happened to yet."""
    tenant = Tenant(deployment, url, "acme")
    with tenant.http:
        yield tenant


class Visit:
    """An operator's window; whatever the browser complains of ends the test."""

    def __init__(self, browser: Browser, url: str, *, window: str, theme: str) -> None:
        how: dict[str, Any] = {"viewport": WINDOWS[window], "color_scheme": theme, "base_url": url}
        self._context = browser.new_context(**how)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self._is_to_complain = False
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def sign_in(self, email: str, to: str = "/admin") -> None:
        """Begin where a stranger does."""
        self.page.goto(to)
        self.page.get_by_label("Email").fill(email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def expect_complaint(self) -> None:
        """Let the browser note answers of status 400 and above, which is what the test is about."""
        self._is_to_complain = True

    def close(self) -> None:
        """Leave."""
        self._context.close()
        refusals = ("Failed to load resource", "Response Status Error") if self._is_to_complain else ()
        assert [told for told in self.complaints if not told.startswith(refusals)] == []

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page as it stands."""
        found = Axe().run(self.page)
        return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found.response["violations"]]

    def is_too_wide(self) -> bool:
        """Whether the page scrolls sideways as a whole."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


OpenVisit = Callable[[str, str], Visit]
"""Opens a window by its name, in a theme."""


@pytest.fixture
def open_visit(chromium: Browser, email: str, url: str) -> Iterator[OpenVisit]:
    """Windows that are closed at the end."""
    opened: list[Visit] = []

    def open_one(window: str, theme: str) -> Visit:
        opened.append(Visit(chromium, url, window=window, theme=theme))
        opened[-1].sign_in(email)
        return opened[-1]

    yield open_one
    for visit in opened:
        visit.close()


@pytest.fixture
def visit(open_visit: OpenVisit) -> Visit:
    """A window on a desk."""
    return open_visit("desktop", "light")
