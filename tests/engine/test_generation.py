"""Requests to pictures, in batches that mix concepts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.concepts import random_concept
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.errors import EngineError, Interrupted, OutOfMemory
from workers.engine.generation import GenerationRequest, draw_in_batches, generate
from workers.engine.warm import WarmModel

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


def test_no_requests_are_no_work(tiny: BaseModel) -> None:
    assert draw(tiny, []) == []


@pytest.mark.parametrize("family", ["tiny", "storybook"])
def test_in_batches_of_one_size_a_picture_is_the_same_to_the_bit(family: str, request: pytest.FixtureRequest) -> None:
    base: BaseModel = request.getfixturevalue(family)
    side = base.native_size
    plain = replace(PLAIN, prompt="a red cat", width=side, height=side)
    concept = with_concept(base, 1).concepts
    mine = replace(plain, prompt="a <tom>", concepts=concept, seed=7)
    crowd = [replace(plain, seed=1, guidance=1.5), replace(plain, prompt="a dog", seed=2), replace(plain, seed=3)]
    other_crowd = [replace(mine, seed=4), replace(plain, prompt="the hat", seed=5), replace(mine, seed=6, guidance=9.0)]
    first = pixels(draw(base, [mine, *crowd])[0])
    for place in range(4):
        answers = draw(base, [*other_crowd[:place], mine, *other_crowd[place:]])
        assert np.array_equal(pixels(answers[place]), first)


class Device:
    """A model on a device that holds so many samples of its U-Net's input at once."""

    def __init__(self, base: BaseModel, *, holds: int) -> None:
        self.seen: list[int] = []
        self.model = WarmModel(replace(base, denoiser=self))  # type: ignore[arg-type]  # it has all that is asked for
        self.schedule, self.unet, self.dtype = base.denoiser.schedule, base.denoiser.unet, base.denoiser.dtype
        self._denoiser, self._holds = base.denoiser, holds

    def predict_x0(self, x_t: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        self.seen.append(len(x_t))
        if len(x_t) > self._holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._denoiser.predict_x0(x_t, timesteps, conditioning)


def test_a_batch_that_memory_does_not_hold_is_halved_and_remembered(tiny: BaseModel) -> None:
    device = Device(tiny, holds=4)  # guidance doubles samples: two pictures
    requests = [replace(PLAIN, seed=seed, steps=2) for seed in range(5)]
    progress: list[tuple[int, int]] = []

    def drawn() -> dict[int, Image.Image | EngineError]:
        answers: dict[int, Image.Image | EngineError] = {}
        for part in draw_in_batches(
            device.model,
            requests,
            batch_size=8,
            on_progress=lambda step, steps: progress.append((step, steps)),
            should_stop=never,
        ):
            answers |= part
        return answers

    answers = drawn()
    assert sorted(answers) == [0, 1, 2, 3, 4]
    assert all(isinstance(answer, Image.Image) for answer in answers.values())
    assert device.seen == [10, 6, 4, 4, 2, 2, 4, 4]
    assert progress[-1] == (6, 6)
    assert [step for step, _ in progress] == [1, 2, 3, 4, 5, 6]
    device.seen.clear()
    again = drawn()
    assert device.seen == [4, 4, 4, 4, 2, 2]
    assert all(np.abs(pixels(again[place]) - pixels(answers[place])).max() <= 1 for place in range(5))


def test_one_picture_that_memory_does_not_hold_is_an_error_worth_another_try(tiny: BaseModel) -> None:
    device = Device(tiny, holds=1)
    parts = draw_in_batches(
        device.model, [PLAIN, replace(PLAIN, seed=2)], batch_size=2, on_progress=lambda *_: None, should_stop=never
    )
    answers = [answer for part in parts for answer in part.values()]
    assert [type(answer) for answer in answers] == [OutOfMemory, OutOfMemory]
    assert all(answer.retryable for answer in answers if isinstance(answer, EngineError))


def test_an_error_that_is_not_about_memory_is_not_tried_again(tiny: BaseModel) -> None:
    broken = replace(tiny, denoiser=None)  # type: ignore[arg-type]  # anything that fails
    with pytest.raises(AttributeError):
        draw(broken, [PLAIN])
