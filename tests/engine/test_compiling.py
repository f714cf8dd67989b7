"""Networks are compiled once for a batch's size, and draw what the plain ones do, whatever the batch is of.

What is compiled is looked at here; making machine code of it takes a minute, and is up to torch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch._dynamo.utils import counters

from tests.engine.concepts import random_concept
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import EngineError
from workers.engine.generation import GenerationRequest, draw_in_batches
from workers.engine.warm import WarmModel

PLAIN = GenerationRequest("a red cat", seed=1, steps=2, guidance=3.0, width=16, height=16)


def drawn(model: WarmModel, *requests: GenerationRequest) -> list[np.ndarray]:
    answers: dict[int, Image.Image | EngineError] = {}
    for part in draw_in_batches(model, requests, batch_size=4, on_progress=lambda *_: None, should_stop=lambda: False):
        answers |= part
    pictures = [answers[place] for place in range(len(requests))]
    return [np.asarray(picture).astype(int) for picture in pictures if isinstance(picture, Image.Image)]


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def test_one_compiled_network_draws_all_concepts_of_a_batch_size(tiny: BaseModel) -> None:
    def concept(seed: int) -> GenerationRequest:
        use = ConceptUse("tom", random_concept(tiny, seed), gate_bias=0.6, gate_temperature=0.15)
        return replace(PLAIN, prompt="a <tom>", concepts=(use,), seed=seed)

    model, before = WarmModel(tiny, backend="eager"), graphs()
    tom = concept(1)
    three = drawn(model, PLAIN, tom, replace(PLAIN, seed=2, guidance=1.5))
    compiled = graphs()
    assert compiled > before
    four = drawn(model, concept(3), tom, replace(PLAIN, prompt="the hat"), concept(4))
    assert graphs() == compiled  # three are filled up to four, and what is told is data
    assert np.array_equal(four[1], three[1])
    for one, other in zip(three, drawn(WarmModel(tiny), PLAIN, tom), strict=False):
        assert np.abs(one - other).max() <= 1
    drawn(model, PLAIN)
    assert graphs() > compiled  # another size


def test_weights_can_still_be_learned_with_once_a_compiled_model_has_drawn(tiny: BaseModel) -> None:
    model = WarmModel(tiny, backend="eager")
    drawn(model, PLAIN)
    told = tiny.conditioner.condition([Prompt("a red cat")])
    x = torch.zeros((1, *tiny.latent_shape(16, 16)), requires_grad=True)
    tiny.denoiser.predict_x0(x, torch.tensor([999]), told).sum().backward()
    assert x.grad is not None
    assert not any(parameter.is_inference() for parameter in tiny.denoiser.unet.parameters())


def test_learning_goes_on_with_the_plain_network(tiny: BaseModel) -> None:
    model = WarmModel(tiny, backend="eager")
    assert model.base.denoiser is tiny.denoiser
    assert model.drawing.denoiser is not tiny.denoiser
    assert model.drawing.denoiser.unet is tiny.denoiser.unet
    assert WarmModel(tiny).drawing is tiny
