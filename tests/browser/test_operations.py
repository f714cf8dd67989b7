"""An operator's way through the pages."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from core.jobs import workers
from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.browser.conftest import THEMES, WINDOWS, OpenVisit, Visit
from tests.serving import POOL, Deployment, Tenant, created


@pytest.fixture
def worker(deployment: Deployment) -> str:
    with deployment.sessions.begin() as session:
        worker_id = workers.register(session, pool=POOL, host="gpu-1", pid=4711)
        workers.beat(session, worker_id, state="idle", device="NVIDIA H100", warm_models=())
    return worker_id


@pytest.fixture
def failed(acme: Tenant) -> str:
    job = acme.deployment.claim(acme.generate()["id"])
    acme.deployment.end(job, JobState.FAILED, JobError("internal-error", "It broke.", retryable=False))
    return job.id


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.usefixtures("worker")
def test_every_page_can_be_used_by_everybody_on_every_screen(
    open_visit: OpenVisit, acme: Tenant, failed: str, window: str, theme: str
) -> None:
    acme.generate()
    hooks = {"url": "https://hooks.example.com/"}
    endpoint = created(acme.http.post("/v1/webhook_endpoints", json=hooks))["id"]
    acme.generate()
    acme.http.post(f"/v1/webhook_endpoints/{endpoint}/disable")
    visit = open_visit(window, theme)
    in_pool, customer, its_hooks = f"/pools/{POOL}/tenants/{acme.id}", f"/tenants/{acme.id}", f"/webhooks/{endpoint}"
    pool = ("", f"/pools/{POOL}", in_pool, "/workers", "/jobs", f"/jobs/{failed}")
    for path in (*pool, "/tenants", customer, "/webhooks", its_hooks, "/models", "/audit"):
        visit.page.goto(f"/admin{path}")
        expect(visit.page.locator("h1")).to_be_visible()
        assert visit.violations() == [], path
        assert not visit.is_too_wide(), path


def test_a_backlog_is_seen_to_form_and_a_tenant_is_paused(visit: Visit, acme: Tenant) -> None:
    visit.page.goto(f"/admin/pools/{POOL}")
    acme.generate()
    row = visit.page.locator("tr", has_text="acme").last
    expect(row).to_be_visible(timeout=5000)
    for _ in range(3):
        acme.generate()
    expect(row.locator("td").nth(6)).to_have_text("4", timeout=5000)
    row.get_by_role("button", name="Pause").click()
    visit.page.get_by_role("button", name="Yes").click()
    expect(visit.page.get_by_text("Holds from the next claim on.")).to_be_visible()
    expect(row.get_by_text("paused")).to_be_visible(timeout=5000)


def test_nothing_is_done_that_is_not_confirmed(visit: Visit, acme: Tenant) -> None:
    acme.generate()
    visit.page.goto(f"/admin/pools/{POOL}")
    row = visit.page.locator("tr", has_text="acme").last
    row.get_by_role("button", name="Pause").click()
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_timeout(1500)
    expect(row.get_by_text("paused")).to_have_count(0)


def test_a_weight_is_changed_by_keyboard(visit: Visit, acme: Tenant) -> None:
    acme.generate()
    visit.page.goto(f"/admin/pools/{POOL}/tenants/{acme.id}")
    visit.page.get_by_label("Weight").fill("250")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("button", name="Yes").focus()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("tr", has_text="acme").last.locator("td").nth(1)).to_have_text("250")


def test_a_worker_is_drained_and_comes_back(visit: Visit, worker: str) -> None:
    visit.page.goto("/admin/workers")
    row = visit.page.locator("tr", has_text="gpu-1").last
    row.get_by_role("button", name="Drain").click()
    visit.page.get_by_role("button", name="Yes").click()
    expect(row.get_by_text("drained")).to_be_visible(timeout=5000)
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_text("drained")).to_have_count(0, timeout=5000)


def test_a_job_is_followed_moved_and_canceled(visit: Visit, acme: Tenant) -> None:
    job_id = acme.generate()["id"]
    visit.page.goto("/admin/jobs?state=queued")
    visit.page.get_by_role("link", name=job_id).click()
    visit.page.get_by_role("button", name="Make it high").click()
    expect(visit.page.locator("dl.facts")).to_contain_text("high", timeout=5000)
    visit.page.get_by_role("button", name="Cancel").click()
    visit.page.get_by_role("button", name="Yes").click()
    expect(visit.page.locator("section .chip").first).to_have_text("canceled", timeout=5000)
    expect(visit.page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_failed_job_is_tried_again(visit: Visit, failed: str) -> None:
    visit.page.goto(f"/admin/jobs/{failed}")
    visit.page.get_by_role("button", name="Try again").click()
    visit.page.get_by_role("button", name="Yes").click()
    expect(visit.page.locator("h1")).not_to_have_text(failed)
    expect(visit.page.locator("section .chip").first).to_have_text("queued")


def test_the_theme_is_kept(visit: Visit) -> None:
    visit.page.goto("/admin")
    visit.page.get_by_role("button", name="Switch between light and dark").click()
    visit.page.goto("/admin/workers")
    expect(visit.page.locator("html")).to_have_attribute("data-theme", "dark")
