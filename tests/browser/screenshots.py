"""Draws the pictures of pages in docs/, on a whole system with five busy tenants and one worker.

python -m tests.browser.screenshots
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from lockstep import Lockstep
from tests.acceptance.conftest import ROOT, RunningStack, running, stack_folder

IMAGES: Final = ROOT / "docs" / "images"
_MODELS: Final = tuple(str(ROOT / "models" / name) for name in ("storybook", "storybook-student"))
_TENANTS: Final = {"Acme": 100, "Bolt Studio": 100, "Cobalt": 200, "Dune & Co": 400, "Elm": 100}
_EMAIL, _PASSWORD = "operator@example.com", "correct horse battery"
_DESK, _PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 800}


def main() -> None:
    """Draw them all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium: see infra/browser.sh")
    with stack_folder() as folder, running(folder / "data", *_MODELS) as stack, sync_playwright() as playwright:
        _let_in(stack)
        job_id = _keep_busy(stack)
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        with _window(browser, stack.url, _DESK, "light") as page:
            page.goto("/admin/pools/gpu")
            for name, weight in _TENANTS.items():
                _weigh(page, name, weight)
            page.wait_for_timeout(25_000)  # some have ended by then
            _draw(page, "/admin/pools/gpu", "operations-pool.png")
            _draw(page, f"/admin/jobs/{job_id}", "operations-job.png")
        with _window(browser, stack.url, _PHONE, "dark") as page:
            _draw(page, "/admin/pools/gpu", "operations-phone.png")
        browser.close()


def _let_in(stack: RunningStack) -> None:
    """Make operators of a tenant, with somebody who may sign in."""
    tenant = stack.lockstepd("admin", "create-tenant", "Operators").split("tenant: ")[1].split()[0]
    stack.lockstepd("admin", "make-operator", tenant)
    command = [sys.executable, "-m", "core.cli", "admin", "create-user", tenant, _EMAIL, "--password", _PASSWORD]
    subprocess.run(command, cwd=ROOT, env=stack.environment, check=True, capture_output=True)


def _keep_busy(stack: RunningStack) -> str:
    """Have every tenant ask for more than the worker can draw meanwhile; a job that waits."""
    for name in _TENANTS:
        with Lockstep(base_url=stack.url, api_key=stack.new_key(name)) as client:
            for number in range(24):
                priority = ("low", "normal", "high")[number % 3]
                job = client.generations.create(
                    prompt="a red cat in the snow", model="storybook", n=2, priority=priority
                )
            for _ in range(6):
                client.generations.create(prompt="a red cat", model="storybook-student")
    return job.id


def _weigh(page: Page, name: str, weight: int) -> None:
    page.get_by_role("link", name=name).click()
    page.get_by_label("Weight").fill(str(weight))
    page.get_by_role("button", name="Change").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("heading", name="Pool gpu")).to_be_visible()


@contextmanager
def _window(browser: Browser, url: str, size: Any, theme: Any) -> Iterator[Page]:
    context = browser.new_context(viewport=size, color_scheme=theme, base_url=url)
    page = context.new_page()
    page.goto("/admin")
    page.get_by_label("Email").fill(_EMAIL)
    page.get_by_label("Password").fill(_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Pools")).to_be_visible()
    yield page
    context.close()


def _draw(page: Page, path: str, name: str) -> None:
    page.goto(path)
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
