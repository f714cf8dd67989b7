"""The SDK and its command line against the whole system, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from infra.demo.receiver import Receiver
from lockstep import Invalid, JobUnsuccessful, Lockstep, NotFound, Unauthenticated
from tests.acceptance.conftest import ROOT, RunningStack

PICTURES = sorted((ROOT / "docs" / "images" / "tom").glob("*.png"))


@pytest.fixture
def images(lockstep: Lockstep) -> list[str]:
    return [lockstep.files.upload(path).id for path in PICTURES[:2]]


def test_a_picture_that_is_uploaded_can_be_fetched(lockstep: Lockstep):
    file = lockstep.files.upload(PICTURES[0])
    assert (file.name, file.purpose, file.width, file.height) == ("1.png", "picture", 64, 64)
    assert lockstep.files.content(file.id).startswith(b"\x89PNG")


def test_what_is_no_picture_is_refused_with_its_code(lockstep: Lockstep):
    with pytest.raises(Invalid) as caught:
        lockstep.files.upload(b"meow", name="cat.txt")
    assert caught.value.code == "picture-unreadable"


def test_a_wrong_key_is_refused(stack: RunningStack):
    with Lockstep(base_url=stack.url, api_key="lk_live_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.models.list()


def test_the_jobs_of_others_are_not_there(stack: RunningStack, lockstep: Lockstep, images: Sequence[str]):
    job = lockstep.trainings.create(concept="tim", superclass="cat", images=images)
    lockstep.trainings.cancel(job.id)
    with Lockstep(base_url=stack.url, api_key=stack.new_key("stranger")) as stranger, pytest.raises(NotFound):
        stranger.jobs.get(job.id)


def test_a_concept_is_learned_and_drawn_and_every_webhook_arrives(lockstep: Lockstep, images: Sequence[str]):
    with Receiver() as receiver:
        endpoint = lockstep.webhook_endpoints.create(url=receiver.url)
        receiver.expect(endpoint.signing_secret or "")
        seen: list[str] = []
        training = lockstep.trainings.create(concept="tom", superclass="cat", images=images)
        learned = lockstep.trainings.wait(training.id, timeout=120, on_event=lambda event: seen.append(event.id))
        asked = lockstep.generations.create(prompt="<tom> on the beach", n=2, seed=5, wait=30)
        drawn = lockstep.generations.wait(asked.id, timeout=120, on_event=lambda event: seen.append(event.id))
        assert receiver.wait_for(seen, seconds=60) == set()
        assert (receiver.verified, receiver.rejected) == (len(seen), [])
        lockstep.webhook_endpoints.delete(endpoint.id)
    assert learned.result is not None
    assert drawn.result is not None
    assert lockstep.concepts.get("tom").latest_version == learned.result.version == 1
    assert len(lockstep.concepts.download("tom")) == learned.result.size_bytes
    assert [image.seed for image in drawn.result.images] == [5, 6]
    assert all(lockstep.files.content(image.file_id) for image in drawn.result.images)
    assert [event.id for job in (training, drawn) for event in lockstep.events.list(job=job.id, limit=3)] == seen


def test_events_can_be_followed_from_the_middle(lockstep: Lockstep):
    job = lockstep.generations.create(prompt="a red cat", steps=2)
    first, *others = list(lockstep.jobs.events(job.id, timeout=120))
    assert list(lockstep.jobs.events(job.id, after=first.id)) == others
    assert list(lockstep.jobs.events(job.id, after=others[-1].id)) == []


def test_the_same_idempotency_key_makes_one_job(lockstep: Lockstep):
    jobs = [lockstep.generations.create(prompt="a red cat", seed=1, idempotency_key="order-17") for _ in range(2)]
    assert jobs[0].id == jobs[1].id


def test_a_canceled_job_is_not_a_success(lockstep: Lockstep):
    job = lockstep.generations.create(prompt="a red cat", steps=200, n=16)
    lockstep.jobs.cancel(job.id)
    with pytest.raises(JobUnsuccessful, match="canceled"):
        lockstep.generations.wait(job.id, timeout=120)


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_the_command_line_trains_draws_and_downloads(stack: RunningStack, api_key: str, tmp_path: Path):
    environment = os.environ | {"LOCKSTEP_URL": stack.url, "LOCKSTEP_API_KEY": api_key}

    def typed(*arguments: str) -> str:
        command = [sys.executable, "-m", "lockstep.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    concept_id = typed("train", "tam", *map(str, PICTURES[:1]), "--superclass", "cat")
    assert concept_id in typed("concepts", "list")
    pictures = typed("generate", "<tam> in the snow", "--out", "pictures", "-n", "2", "--seed", "3").splitlines()
    assert [(tmp_path / picture).stat().st_size > 0 for picture in pictures] == [True, True]
    swept = typed(
        "sweep", "<tam> in the snow", "--concept", "tam", "--gate-bias", "0.3,0.7", "--out", "pictures"
    ).splitlines()
    assert [picture.rpartition("-")[2] for picture in swept] == ["0.3.png", "0.7.png"]
    assert [(tmp_path / picture).stat().st_size > 0 for picture in swept] == [True, True]
    (small,) = typed("generate", "a cat", "--out", "pictures", "--format", "webp", "--no-metadata").splitlines()
    assert (tmp_path / small).read_bytes()[8:12] == b"WEBP"
    repeated = typed("reproduce", Path(pictures[0]).stem.rpartition("-")[0], "--out", "again").splitlines()
    assert [pixels(tmp_path / picture) for picture in repeated] == [pixels(tmp_path / picture) for picture in pictures]
    assert "succeeded" in typed("jobs", "list")
    assert typed("concepts", "download", "tam") == "tam-v1.safetensors"
    assert (tmp_path / "tam-v1.safetensors").stat().st_size > 1_000
    assert typed("concepts", "import", "tam", "tam-v1.safetensors") == concept_id
    twin = typed("concepts", "import", "twin", "tam-v1.safetensors")
    assert twin in typed("concepts", "list")
    assert typed("generate", "<twin>", "--out", "pictures").endswith(".png")
