"""Draws the pictures of pages in docs/, each part on a whole system of its own, with one worker.

The operators have five busy tenants; the studio's customer has two concepts.

python -m tests.browser.screenshots [operations] [studio]
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lockstep import Lockstep
from tests.acceptance.conftest import ROOT, RunningStack, running, stack_folder
from tests.browser import studio_scene

IMAGES: Final = ROOT / "docs" / "images"
_MODELS: Final = tuple(str(ROOT / "models" / name) for name in ("storybook", "storybook-student"))
_TENANTS: Final = {"Acme": 100, "Bolt Studio": 100, "Cobalt": 200, "Dune & Co": 400, "Elm": 100}
_EMAIL, _PASSWORD = "operator@example.com", "correct horse battery"
_DESK, _PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 800}


def main() -> None:
    """Draw those that are named, or all."""
    parts = {"operations": _draw_operations, "studio": _draw_studio}
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium: see infra/browser.sh")
    for name in sys.argv[1:] or parts:
        with stack_folder() as folder, running(folder / "data", *_MODELS) as stack, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
            parts[name](stack, browser)
            browser.close()


def _draw_operations(stack: RunningStack, browser: Browser) -> None:
    tenant = _tenant(stack, "Operators")[0]
    stack.lockstepd("admin", "make-operator", tenant)
    _let_in(stack, tenant)
    job_id = _keep_busy(stack)
    with _window(browser, stack.url, _DESK, "light") as page:
        page.goto("/admin/pools/gpu")
        for name, weight in _TENANTS.items():
            _weigh(page, name, weight)
        page.wait_for_timeout(25_000)  # some have ended by then
        _draw(page, "/admin/pools/gpu", "operations-pool.png")
        _draw(page, f"/admin/jobs/{job_id}", "operations-job.png")
    with _window(browser, stack.url, _PHONE, "dark") as page:
        _draw(page, "/admin/pools/gpu", "operations-phone.png")


def _draw_studio(stack: RunningStack, browser: Browser) -> None:
    tenant, key = _tenant(stack, "Acme")
    _let_in(stack, tenant)
    with Lockstep(base_url=stack.url, api_key=key) as client, _window(browser, stack.url, _DESK, "light") as page:
        scene = studio_scene.begin(client)
        with _window(browser, stack.url, _DESK, "dark") as dark:
            dark.goto(f"/studio/trainings/{scene.trainings[0]}")
            studio_scene.wait_for_steps(client, scene, 0.6)
            _draw(dark, f"/studio/trainings/{scene.trainings[0]}", "studio-training.webp")
        studio_scene.draw(client, scene)
        composed = studio_scene.compose(page)
        _shoot(page, "studio-compose.webp")
        studio_scene.compare(page)
        _shoot(page, "studio-compare.webp")
        with _window(browser, stack.url, _PHONE, "dark") as phone:
            phone.goto(composed)
            phone.get_by_label("Bias of throne").scroll_into_view_if_needed()
            _shoot(phone, "studio-phone.webp")


def _tenant(stack: RunningStack, name: str) -> tuple[str, str]:
    """A new tenant's id and its API key."""
    said = stack.lockstepd("admin", "create-tenant", name)
    return said.split("tenant: ")[1].split()[0], said.split("key: ")[1].strip()


def _let_in(stack: RunningStack, tenant: str) -> None:
    """Make somebody of a tenant's who may sign in."""
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
    page.goto("/sign-in")
    page.get_by_label("Email").fill(_EMAIL)
    page.get_by_label("Password").fill(_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    yield page
    context.close()


def _draw(page: Page, path: str, name: str) -> None:
    page.goto(path)
    page.wait_for_timeout(1500)
    _shoot(page, name)


def _shoot(page: Page, name: str) -> None:
    """Keep what the window shows, small."""
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    if name.endswith(".png"):
        shown = shown.quantize(192, dither=Image.Dither.NONE)
    shown.save(IMAGES / name, optimize=True, quality=88, method=6)


if __name__ == "__main__":
    main()
