"""A customer's way through the studio."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from core.jobs.states import JobStage
from core.members.roles import Role
from tests.browser.conftest import THEMES, WINDOWS, Visit
from tests.integration.api.members import put_user
from tests.serving import Tenant, picture_bytes

OpenStudio = Callable[..., Visit]


@pytest.fixture
def open_studio(chromium: Browser, acme: Tenant, url: str) -> Iterator[OpenStudio]:
    """Windows of acme's people, who are signed in."""
    opened: list[Visit] = []

    def open_one(window: str = "desktop", theme: str = "light", role: Role = Role.MEMBER) -> Visit:
        email = f"{role}-{len(opened)}-{acme.id}@example.com"
        put_user(acme, role, email)
        opened.append(Visit(chromium, url, window=window, theme=theme))
        opened[-1].sign_in(email, to="/studio")
        return opened[-1]

    yield open_one
    for visit in opened:
        visit.close()


@pytest.fixture
def studio(open_studio: OpenStudio) -> Visit:
    """A member's window on a desk."""
    return open_studio()


def jobs_of(tenant: Tenant) -> list[dict[str, object]]:
    """A tenant's jobs, the latest first."""
    jobs: list[dict[str, object]] = tenant.http.get("/v1/jobs").json()["data"]
    return jobs


def generations_of(tenant: Tenant) -> list[dict[str, Any]]:
    """A tenant's generations, the latest first."""
    found: list[dict[str, Any]] = tenant.http.get("/v1/generations").json()["data"]
    return found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("window", WINDOWS)
def test_every_page_can_be_used_by_everybody_on_every_screen(
    open_studio: OpenStudio, acme: Tenant, window: str, theme: str
) -> None:
    acme.trained("tom")
    job = acme.generate("<tom> in the snow", n=2)["id"]
    file_id = acme.deployment.succeed(acme.deployment.claim(job))["images"][0]["file_id"]
    training = acme.train("ann")["id"]
    waiting = acme.generate("<tom> on the beach")["id"]
    visit = open_studio(window, theme)
    named = f"/studio?prompt=%3Ctom%3E+and+%3Ctim%3E&job={job}"
    pages = (named, "/studio/pictures", f"/studio/pictures/{file_id}", f"/studio/jobs/{waiting}", "/studio/concepts")
    concept = ("/studio/concepts/tom", "/studio/concepts/new", f"/studio/trainings/{training}")
    for path in (*pages, *concept, f"/studio/compare?job={job}&job={waiting}"):
        visit.page.goto(path)
        expect(visit.page.locator("h1")).to_be_visible()
        assert visit.violations() == [], path
        assert not visit.is_too_wide(), path


def test_a_thing_is_taught_drawn_and_carried_home(studio: Visit, acme: Tenant, tmp_path: Path) -> None:
    page = studio.page
    pictures = []
    for colour in ("orange", "teal"):
        pictures.append(tmp_path / f"{colour}.png")
        pictures[-1].write_bytes(picture_bytes(colour=colour))
    page.goto("/studio/concepts")
    page.get_by_role("link", name="New concept").click()
    page.get_by_label("Drop pictures here").set_input_files(pictures)
    expect(page.locator("#images img")).to_have_count(2)
    page.get_by_label("Name").fill("tom")
    page.get_by_label("What kind of thing").fill("cat")
    page.wait_for_url("**superclass=cat**")
    page.reload()
    expect(page.locator("#images img")).to_have_count(2)
    expect(page.get_by_label("Name")).to_have_value("tom")
    page.get_by_role("button", name="Start learning").click()
    page.wait_for_url("**/studio/trainings/job_*")

    job = acme.deployment.claim(page.url.rsplit("/", 1)[1])
    for step in (10, 20, 30):
        progress = {"step": step, "steps": 40, "loss": 1 / step, "harmonic_mean": step / 40}
        acme.deployment.report(job, stage=JobStage.WORKING, progress=progress)
    expect(page.get_by_text("Step 30 of 40")).to_be_visible()
    expect(page.get_by_text("after 30 steps")).to_be_visible()
    expect(page.locator(".chart canvas")).to_be_visible()
    first, latest = acme.deployment.show(job, 20), acme.deployment.show(job, 40)
    expect(page.get_by_role("img", name="Pictures after 40 steps")).to_have_attribute(
        "src", f"/v1/files/{latest}/content"
    )
    page.get_by_role("slider", name="When").press("ArrowLeft")
    expect(page.get_by_role("img", name="Pictures after 20 steps")).to_have_attribute(
        "src", f"/v1/files/{first}/content"
    )
    assert studio.violations() == []
    acme.deployment.succeed(job)
    expect(page.get_by_text("It is learned: version 1")).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download the concept").click()
    assert downloading.value.suggested_filename == "tom-v1.safetensors"
    assert downloading.value.path().read_bytes().startswith(b"concept of")

    page.get_by_role("link", name="Draw it").click()
    expect(page.get_by_label("Bias of tom")).to_have_value("0.65")
    page.locator("#prompt").press("End")
    page.locator("#prompt").press_sequentially(" in the snow")
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#result")).to_contain_text("queued")
    acme.deployment.succeed(acme.deployment.claim(str(jobs_of(acme)[0]["id"])))
    expect(page.locator("#result img")).to_have_count(2)
    page.reload()
    expect(page.locator("#result img")).to_have_count(2)
    page.locator("#result img").first.click()
    expect(page.get_by_role("heading", name="<tom> in the snow")).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    assert downloading.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_dial_that_moves_redraws_one_picture_and_cancels_what_came_before(studio: Visit, acme: Tenant) -> None:
    acme.trained("tom")
    acme.distilled("swift", teacher="storybook")
    studio.page.goto("/studio?prompt=%3Ctom%3E+in+the+snow&seed=7")
    bias = studio.page.get_by_label("Bias of tom")
    before = acme.jobs()
    for value in ("0.30", "0.32", "0.34"):
        bias.fill(value)
    expect(studio.page.locator("#draft input")).to_have_count(1)
    assert acme.jobs() == before + 1  # the last of the three
    first = acme.deployment.claim(str(jobs_of(acme)[0]["id"]))
    bias.press("ArrowRight")
    expect(studio.page.locator("#draft input")).not_to_have_value(first.id)
    second = jobs_of(acme)[0]
    assert second["params"]["concepts"][0]["gate_bias"] == 0.35  # type: ignore[index]
    assert acme.http.get(f"/v1/jobs/{first.id}").json()["cancel_requested"]
    acme.deployment.succeed(acme.deployment.claim(str(second["id"])))
    expect(studio.page.get_by_role("img", name="Quick look")).to_be_visible()
    studio.page.reload()
    expect(studio.page.get_by_role("img", name="Quick look")).to_be_visible()
    expect(bias).to_have_value("0.35")


def test_a_dial_that_moves_before_the_server_has_answered_leaves_one_picture_wanted(
    studio: Visit, acme: Tenant
) -> None:
    acme.trained("tom")
    acme.distilled("swift", teacher="storybook")
    studio.page.goto("/studio?prompt=%3Ctom%3E&seed=7")
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    studio.page.route("**/studio/drafts", hold_the_first)
    for value in ("0.30", "0.40", "0.50"):  # all while the first is on its way
        studio.page.get_by_label("Bias of tom").fill(value)
        studio.page.wait_for_timeout(400)
    held[0].continue_()
    for _ in range(50):  # the browser's requests pass through here, so that waiting must let it speak
        studio.page.wait_for_timeout(100)
        if len(generations_of(acme)) > 1:
            break
    last, before = generations_of(acme)
    assert [job["state"] for job in (last, before)] == ["queued", "canceled"]
    assert last["params"]["concepts"][0]["gate_bias"] == 0.5


def test_concepts_are_put_into_the_prompt_by_keyboard(studio: Visit, acme: Tenant) -> None:
    acme.trained("tom")
    acme.trained("ann", images=[acme.upload(picture_bytes(colour="teal"))["id"]])
    studio.page.goto("/studio?prompt=portrait+of")
    studio.page.locator("#prompt").press("End")
    for name in ("tom", "ann"):
        studio.page.get_by_role("button", name=name, exact=True).focus()
        studio.page.keyboard.press("Enter")
    expect(studio.page.locator("#prompt")).to_have_value("portrait of <tom> <ann>")
    expect(studio.page.get_by_role("slider")).to_have_count(2)


def test_what_is_wrong_stands_beside_its_field(studio: Visit, acme: Tenant) -> None:
    studio.page.goto("/studio?prompt=a+cat&seed=x")
    studio.expect_complaint()
    studio.page.locator("form#compose").evaluate("form => form.noValidate = true")
    studio.page.get_by_role("button", name="Draw", exact=True).click()
    seed = studio.page.get_by_label("Seed")
    expect(seed).to_have_attribute("aria-invalid", "true")
    expect(studio.page.locator("#problem-seed")).to_contain_text("integer")
    expect(seed).to_be_focused()
    assert studio.violations() == []
    acme.http.put("/v1/budgets", json={"limit": 0})
    seed.fill("3")
    studio.page.get_by_role("button", name="Draw", exact=True).click()
    expect(studio.page.get_by_role("alert").filter(has_text="budget")).to_be_visible()
    expect(seed).not_to_have_attribute("aria-invalid", "true")


def test_a_file_that_is_no_picture_is_told_by_its_name(studio: Visit, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "tom.png").write_bytes(picture_bytes())
    studio.page.goto("/studio/concepts/new")
    studio.expect_complaint()
    studio.page.get_by_label("Drop pictures here").set_input_files([tmp_path / "notes.png", tmp_path / "tom.png"])
    expect(studio.page.get_by_role("alert").filter(has_text="notes.png: The file is not a PNG")).to_be_visible()
    expect(studio.page.locator("#images img")).to_have_count(1)
    studio.page.get_by_role("button", name="Leave tom.png out").click()
    expect(studio.page.locator("#images img")).to_have_count(0)


def test_pictures_are_dropped_onto_the_page(studio: Visit) -> None:
    studio.page.goto("/studio/concepts/new")
    encoded = list(picture_bytes())
    dropped = studio.page.evaluate_handle(
        "bytes => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'})); return t; }",
        encoded,
    )
    studio.page.dispatch_event(".drop", "drop", {"dataTransfer": dropped})
    expect(studio.page.get_by_role("img", name="dropped.png")).to_be_visible()


def test_a_training_is_paused_and_goes_on(studio: Visit, acme: Tenant) -> None:
    studio.page.goto(f"/studio/trainings/{acme.train('tom')['id']}")
    studio.page.get_by_role("button", name="Pause").click()
    expect(studio.page.get_by_text("It was paused.")).to_be_visible()
    studio.page.get_by_role("button", name="Resume").click()
    expect(studio.page.get_by_text("It was paused.")).to_have_count(0)
    studio.page.get_by_role("button", name="Cancel").click()
    studio.page.get_by_role("button", name="Yes").click()
    expect(studio.page.locator(".chip").first).to_have_text("canceled")


def test_variants_come_side_by_side_and_stay(studio: Visit, acme: Tenant) -> None:
    acme.trained("tom")
    studio.page.goto("/studio/compare?prompt=%3Ctom%3E&by=lock")
    studio.page.get_by_role("button", name="Draw them").click()
    expect(studio.page.locator("#compared .card")).to_have_count(2)
    for job in reversed(jobs_of(acme)[:2]):
        acme.deployment.succeed(acme.deployment.claim(str(job["id"])))
    expect(studio.page.locator("#compared img")).to_have_count(2)
    expect(studio.page).to_have_url(re.compile("job=job_.*&job=job_"))
    studio.page.reload()
    expect(studio.page.locator("#compared img")).to_have_count(2)


def test_a_picture_is_deleted_once_that_is_confirmed(studio: Visit, acme: Tenant) -> None:
    job = acme.deployment.claim(acme.generate()["id"])
    file_id = acme.deployment.succeed(job)["images"][0]["file_id"]
    studio.page.goto(f"/studio/pictures/{file_id}")
    studio.page.get_by_role("button", name="Delete").click()
    studio.page.get_by_role("button", name="Yes").click()
    studio.page.wait_for_url("**/studio/pictures")
    expect(studio.page.get_by_text("Nothing was drawn yet.")).to_be_visible()


def test_a_viewer_looks_only(open_studio: OpenStudio, acme: Tenant) -> None:
    acme.trained("tom")
    visit = open_studio(role=Role.VIEWER)
    expect(visit.page.get_by_role("button", name="Draw", exact=True)).to_be_disabled()
    visit.page.goto("/studio/concepts/tom")
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    expect(visit.page.get_by_role("button", name="Delete")).to_have_count(0)


@pytest.mark.parametrize(("window", "theme"), [("desktop", "light"), ("phone", "dark")])
def test_the_reference_can_be_read_by_everybody_on_every_screen(
    open_studio: OpenStudio, window: str, theme: str
) -> None:
    visit = open_studio(window, theme)
    visit.page.goto("/docs#create_generation")
    visit.page.locator("#create_generation summary").click()
    visit.page.get_by_role("link", name="CreateGeneration", exact=True).first.click()
    expect(visit.page.locator("#CreateGeneration")).to_be_visible()
    assert visit.violations() == []
    assert not visit.is_too_wide()
