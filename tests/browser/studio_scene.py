"""What the studio's screenshots show: a cat and a chair, learned and drawn together."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, expect

from lockstep import Lockstep
from tests.waiting import until
from workers.engine.storybook.identity import sample_identity, split_rng
from workers.engine.storybook.portrait import portraits

_TOM: Final = Path(__file__).parents[2] / "docs" / "images" / "tom"
_PROMPT: Final = "<tom> and <throne> on the beach"
_ALONE: Final = (
    "<tom> wearing a red hat in the snow",
    "<throne> in the forest",
    "<tom> in the city at night",
    "<throne> on the beach",
    "<tom> on a white background",
    "<throne> in the snow",
)
_MINUTES: Final = 60_000


@dataclass(frozen=True)
class Scene:
    """The trainings that go on."""

    trainings: tuple[str, ...]


def begin(client: Lockstep) -> Scene:
    """Start to learn both."""
    chair = sample_identity(split_rng("held-out", 7), cls="chair", colour="green", pattern="plain")
    pictures: dict[str, list[bytes]] = {"tom": [path.read_bytes() for path in sorted(_TOM.glob("*.png"))], "throne": []}
    for picture in portraits(chair, 5, seed=7):
        encoded = io.BytesIO()
        Image.fromarray(picture.pixels).save(encoded, "PNG")
        pictures["throne"].append(encoded.getvalue())
    trainings = []
    for name, superclass in (("tom", "cat"), ("throne", "chair")):
        files = [
            client.files.upload(data, name=f"{name}-{number}.png").id for number, data in enumerate(pictures[name], 1)
        ]
        trainings.append(client.trainings.create(concept=name, superclass=superclass, images=files, seed=0).id)
    return Scene(tuple(trainings))


def wait_for_steps(client: Lockstep, scene: Scene, part: float) -> None:
    """Wait until the first training has done this part of its steps."""

    def has() -> bool:
        progress = client.trainings.get(scene.trainings[0]).progress or {}
        return bool(progress) and progress["step"] >= part * progress["steps"]

    until(has, seconds=400)


def draw(client: Lockstep, scene: Scene) -> None:
    """Wait for both, and fill the gallery."""
    for training in scene.trainings:
        client.jobs.wait(training)
    jobs = [client.generations.create(prompt=prompt, seed=3 + number) for number, prompt in enumerate(_ALONE)]
    for job in jobs:
        client.generations.wait(job.id)


def compose(page: Page) -> str:
    """Turn a dial and draw; the address of what is seen then."""
    page.goto("/studio?seed=11&n=3&model=storybook")
    page.locator("#prompt").fill(_PROMPT)
    expect(page.get_by_role("slider")).to_have_count(2, timeout=_MINUTES)
    page.get_by_label("Bias of tom").fill("0.55")
    expect(page.get_by_role("img", name="Quick look")).to_be_visible(timeout=_MINUTES)
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#result img")).to_have_count(3, timeout=3 * _MINUTES)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    return page.url


def compare(page: Page) -> None:
    """Draw one prompt by the teacher and by its student."""
    page.goto("/studio/compare?seed=5&by=model")
    page.locator("#prompt").fill("<tom> wearing a red hat in the snow")
    page.get_by_role("button", name="Draw them").click()
    expect(page.locator("#compared img")).to_have_count(2, timeout=3 * _MINUTES)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(1500)
