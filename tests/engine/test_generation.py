"""Requests to pictures, in batches that mix concepts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.engine.conftest import random_concept
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.errors import EngineError, Interrupted, ModelUnreadable
from workers.engine.generation import GenerationRequest, ModelCache, generate

PLAIN = GenerationRequest("a red cat", seed=1, steps=3, guidance=4.0, width=16, height=16)


def never() -> bool:
    return False


def draw(base: BaseModel, requests: list[GenerationRequest], *, batch_size: int = 8) -> list[Image.Image | EngineError]:
    return generate(base, requests, batch_size=batch_size, on_progress=lambda *_: None, should_stop=never)


def pixels(answer: Image.Image | EngineError) -> np.ndarray:
    assert isinstance(answer, Image.Image), answer
    return np.asarray(answer).astype(int)


def with_concept(base: BaseModel, seed: int) -> GenerationRequest:
    use = ConceptUse("tom", random_concept(base, seed), gate_bias=0.6, gate_temperature=0.15)
    return replace(PLAIN, prompt="a <tom>", concepts=(use,))


def test_a_concept_changes_the_picture_and_none_leaves_it_alone(tiny: BaseModel) -> None:
    plain, tom, rex = draw(tiny, [replace(PLAIN, prompt="a cat"), with_concept(tiny, 1), with_concept(tiny, 2)])
    assert np.abs(pixels(plain) - pixels(tom)).max() > 1
    assert np.abs(pixels(tom) - pixels(rex)).max() > 1


def test_a_request_gets_the_same_picture_alone_as_in_a_mixed_batch(tiny: BaseModel) -> None:
    requests = [PLAIN, with_concept(tiny, 1), replace(PLAIN, seed=2, guidance=1.5), with_concept(tiny, 2)]
    for alone, together in zip((draw(tiny, [request])[0] for request in requests), draw(tiny, requests), strict=True):
        assert np.abs(pixels(alone) - pixels(together)).max() <= 1  # grey level


def test_answers_keep_their_places_across_sizes_steps_and_batches(tiny: BaseModel) -> None:
    sizes = [(16, 16), (32, 16), (16, 16), (18, 30), (16, 16)]
    requests = [replace(PLAIN, seed=seed, width=w, height=h, steps=2 + seed % 2) for seed, (w, h) in enumerate(sizes)]
    answers = draw(tiny, requests, batch_size=2)
    assert [answer.size for answer in answers if isinstance(answer, Image.Image)] == sizes
    again = draw(tiny, [requests[4]])
    assert np.abs(pixels(answers[4]) - pixels(again[0])).max() <= 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompt": "<rex>"}, "placeholder-unknown"),
        ({"negative_prompt": "<tom>"}, "placeholder-unknown"),
        ({"prompt": "cat " * 40}, "prompt-too-long"),
        ({"width": 17}, "size-unsupported"),
        ({"height": 0}, "size-unsupported"),
        ({"width": 4096}, "size-unsupported"),
        ({"steps": 0}, "settings-invalid"),
        ({"guidance": float("nan")}, "settings-invalid"),
        ({"guidance": 51.0}, "settings-invalid"),
        ({"seed": -1}, "settings-invalid"),
    ],
)
def test_a_bad_request_fails_alone(tiny: BaseModel, change: dict[str, object], code: str) -> None:
    good, bad, other = draw(tiny, [PLAIN, replace(PLAIN, **change), replace(PLAIN, seed=9)])  # type: ignore[arg-type]  # a table of fields
    assert isinstance(bad, EngineError)
    assert (bad.code, bad.retryable) == (code, False)
    assert isinstance(good, Image.Image)
    assert isinstance(other, Image.Image)


def test_progress_counts_the_steps_of_all_batches(tiny: BaseModel) -> None:
    seen: list[tuple[int, int]] = []
    generate(
        tiny, [PLAIN] * 3, batch_size=2, on_progress=lambda step, steps: seen.append((step, steps)), should_stop=never
    )
    assert seen == [(step, 6) for step in range(1, 7)]


def test_a_stop_counts_the_steps_of_earlier_batches(tiny: BaseModel) -> None:
    seen: list[int] = []
    with pytest.raises(Interrupted) as stopped:
        generate(
            tiny,
            [PLAIN] * 3,
            batch_size=2,
            on_progress=lambda step, _: seen.append(step),
            should_stop=lambda: len(seen) == 4,
        )
    assert stopped.value.step == 4


class Loads:
    """A cache whose loads are counted."""

    def __init__(self, model: BaseModel, *, capacity: int) -> None:
        self.model = model
        self.seen: list[str] = []
        self.cache = ModelCache(self.load, self.load_student, capacity=capacity)

    def load(self, name: str) -> BaseModel:
        self.seen.append(name)
        return self.model

    def load_student(self, path: str, teacher: BaseModel) -> BaseModel:
        self.seen.append(path)
        return teacher


def test_the_cache_drops_the_least_recently_used_model(tiny: BaseModel) -> None:
    loads = Loads(tiny, capacity=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        loads.cache.get(name)
    assert loads.seen == ["a", "b", "c", "b"]
    assert ("c", None) not in loads.cache


def test_students_of_one_teacher_share_it_and_keep_it_warm(tiny: BaseModel) -> None:
    loads = Loads(tiny, capacity=3)
    for name, student in (("a", "s"), ("b", None), ("a", "s"), ("a", "t"), ("a", "s"), ("a", None)):
        loads.cache.get(name, student)
    assert loads.seen == ["a", "s", "b", "t"]
    assert ("b", None) not in loads.cache


def test_with_room_for_one_a_student_takes_its_teachers_place(tiny: BaseModel) -> None:
    loads = Loads(tiny, capacity=1)
    for _ in range(2):
        assert loads.cache.get("a", "s") is tiny
    assert loads.seen == ["a", "s"]
    assert ("a", None) not in loads.cache


def test_a_student_that_cannot_be_loaded_leaves_its_teacher_warm(tiny: BaseModel) -> None:
    def refuse(_path: str, _teacher: BaseModel) -> BaseModel:
        raise ModelUnreadable("broken")

    loads = Loads(tiny, capacity=2)
    cache = ModelCache(loads.load, refuse, capacity=2)
    with pytest.raises(ModelUnreadable):
        cache.get("a", "s")
    assert ("a", None) in cache
    assert ("a", "s") not in cache


def test_no_requests_are_no_work(tiny: BaseModel) -> None:
    assert draw(tiny, []) == []
