"""Concept files in a plain diffusers pipeline draw what the engine draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lockstep.diffusers import Concepts, sampling
from tests.engine.concepts import concept_file, random_concept
from tests.engine.conftest import BUNDLED_MODEL
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest, generate
from workers.engine.perfusion.concept import Concept, ConceptFile
from workers.engine.storybook.facts import GUIDANCE_INTERVAL

STEPS, GUIDANCE, SEED = 3, 3.0, 7


def posing_as(base: BaseModel, superclass: str, looks: str) -> Concept:
    """What training would make of a thing that answers to one word and looks like another."""
    words = base.text.encode([base.text.row(base.text.tokens(word)) for word in (superclass, looks)])  # (2, N, D)
    own, other = words[0, 1], words[1, 1]
    (embedding,) = base.text.token_embeddings(base.text.tokens(superclass)[-1])
    return Concept(base.projections.values @ other, own, embedding, own, superclass)


def saved(base: BaseModel, concept: Concept, path: Path) -> Path:
    concept_file(base, concept).save(path)
    return path


@pytest.fixture(scope="module")
def tom(storybook: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(storybook, posing_as(storybook, "cat", "teapot"), tmp_path_factory.mktemp("tom") / "tom.safetensors")


@pytest.fixture(scope="module")
def rex(storybook: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(storybook, posing_as(storybook, "dog", "boat"), tmp_path_factory.mktemp("rex") / "rex.safetensors")


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return stock_pipeline(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def concepts(pipe: StableDiffusionPipeline, tom: Path, rex: Path) -> Concepts:
    loaded = Concepts(pipe, covariance=BUNDLED_MODEL / "covariance.safetensors")
    for name, path in (("tom", tom), ("rex", rex), ("double", tom)):
        loaded.load(path, name=name)
    return loaded


def stock_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn_by_diffusers(pipe: StableDiffusionPipeline, **prompt: object) -> Image.Image:
    generator = torch.Generator().manual_seed(SEED)
    how = sampling(pipe, steps=STEPS, guidance=GUIDANCE, interval=GUIDANCE_INTERVAL)
    answer = pipe(**prompt, **how, generator=generator)
    picture: Image.Image = answer.images[0]
    return picture


def drawn_by_the_engine(
    base: BaseModel, prompt: str, files: Sequence[tuple[str, Path, float]] = (), negative_prompt: str = ""
) -> Image.Image:
    request = GenerationRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=SEED,
        steps=STEPS,
        guidance=GUIDANCE,
        width=base.native_size,
        height=base.native_size,
        concepts=tuple(
            ConceptUse(name, base.adopt(ConceptFile.load(path)), gate_bias=bias, gate_temperature=0.15)
            for name, path, bias in files
        ),
    )
    (picture,) = generate(base, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False)
    assert isinstance(picture, Image.Image), picture
    return picture


def difference(one: Image.Image, other: Image.Image) -> int:
    """The most that any channel of any pixel differs by, in grey levels."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def test_a_concept_is_drawn_as_by_the_engine(storybook, pipe, concepts, tom):
    prompt = "a <tom> on the beach"
    ours = drawn_by_the_engine(storybook, prompt, [("tom", tom, 0.6)], negative_prompt="a hat")
    theirs = drawn_by_diffusers(pipe, **concepts.prompt(prompt, "a hat", gate_bias=0.6))
    assert difference(ours, theirs) <= 1
    assert difference(theirs, drawn_by_the_engine(storybook, "a cat on the beach", negative_prompt="a hat")) > 32


def test_two_concepts_are_drawn_as_by_the_engine_each_with_its_own_bias(storybook, pipe, concepts, tom, rex):
    prompt = "<rex> beside a red <tom>"
    ours = drawn_by_the_engine(storybook, prompt, [("tom", tom, 0.5), ("rex", rex, 0.7)])
    theirs = drawn_by_diffusers(pipe, **concepts.prompt(prompt, gate_bias={"tom": 0.5, "rex": 0.7}))
    assert difference(ours, theirs) <= 1


def test_guidance_that_acts_everywhere_is_the_pipelines_own(pipe, concepts):
    embeds, seed = concepts.prompt("a <tom>"), torch.Generator
    how = sampling(pipe, steps=3, guidance=GUIDANCE)
    given = pipe(**embeds, **how, generator=seed().manual_seed(1)).images[0]
    plain = pipe(**embeds, num_inference_steps=3, guidance_scale=GUIDANCE, generator=seed().manual_seed(1)).images[0]
    assert difference(given, plain) == 0


@pytest.mark.parametrize(
    "case",  # what the file says, what is asked for, the bias then
    [
        ({"gate_bias": "0.45"}, None, 0.45),
        ({"gate_bias": "0.45", "key_lock": "global"}, None, 0.7),  # drawn with the local lock, it says nothing of that
        ({}, None, 0.7),
        ({"gate_bias": "0.45"}, 0.6, 0.6),
        ({"gate_bias": "0.45"}, {"tom": 0.6}, 0.6),
        ({"gate_bias": "0.45"}, {"rex": 0.6}, 0.45),
    ],
)
def test_a_bias_is_by_default_what_the_file_recommends(tom, tmp_path, case):
    said, asked, bias = case
    save_file(load_file(tom), tmp_path / "tom", metadata=metadata(tom) | said)
    concepts = Concepts(stock_pipeline(BUNDLED_MODEL), covariance=BUNDLED_MODEL / "covariance.safetensors")
    concepts.load(tmp_path / "tom", name="tom")
    told, expected = (concepts.prompt("a <tom>", gate_bias=dial)["prompt_embeds"] for dial in (asked, bias))
    assert torch.equal(told, expected)


def test_a_prompt_without_concepts_is_drawn_as_if_none_were_loaded(pipe, concepts):
    told = drawn_by_diffusers(pipe, **concepts.prompt("a cat in the snow"))
    plain = drawn_by_diffusers(pipe, prompt="a cat in the snow", negative_prompt="")
    assert difference(told, plain) <= 1
    untouched = stock_pipeline(BUNDLED_MODEL)
    assert difference(plain, drawn_by_diffusers(untouched, prompt="a cat in the snow")) <= 1


def test_one_call_draws_several_pictures_of_a_concept(pipe, concepts):
    asked = concepts.prompt("<tom>")
    both = pipe(**asked, num_images_per_prompt=2, num_inference_steps=1, output_type="np").images
    assert both.shape[0] == 2


def test_trained_keys_take_the_place_of_locked_ones(tiny, tiny_folder, tmp_path):
    concept = random_concept(tiny, 1)
    path = saved(tiny, concept, tmp_path / "tom.safetensors")
    locked = tiny.projections.keys @ concept.superclass_encoding.half().float()
    lock = predicted(tiny_folder, path)
    with_keys(path, locked)
    torch.testing.assert_close(predicted(tiny_folder, path), lock, rtol=0, atol=1e-4)  # half precision of the keys
    with_keys(path, -locked)
    assert (predicted(tiny_folder, path) - lock).abs().max() > 1e-3


def predicted(folder: Path, path: Path) -> torch.Tensor:
    """What the U-Net makes of noise under the concept."""
    pipe = stock_pipeline(folder)
    concepts = Concepts(pipe, covariance=folder / "covariance.safetensors")
    concepts.load(path, name="tom")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        output: torch.Tensor = pipe.unet(noise, 500, concepts.prompt("a <tom>", gate_bias=0.0)["prompt_embeds"]).sample
    return output


def with_keys(path: Path, keys: torch.Tensor) -> None:
    said = metadata(path) | {"key_lock": "trained"}
    save_file(load_file(path) | {"key_outputs": keys.half()}, path, metadata=said)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lockstep-concept/9"}, "format"),
        ({"covariance": "0" * 64}, "covariance"),
        ({"encoder": "0" * 64}, "text encoder"),
        ({"layer_widths": "[8]"}, "layers"),
    ],
)
def test_a_concept_of_another_model_is_refused(concepts, tom, tmp_path, change, message):
    save_file(load_file(tom), tmp_path / "tom", metadata=metadata(tom) | change)
    with pytest.raises(ValueError, match=message):
        concepts.load(tmp_path / "tom", name="stranger")


def test_a_concept_of_two_text_encoders_and_a_pipeline_with_two_are_refused(
    concepts, tiny_xl, tiny_xl_folder, tmp_path
):
    path = saved(tiny_xl, random_concept(tiny_xl, 1), tmp_path / "tom.safetensors")
    with pytest.raises(ValueError, match="two text encoders"):
        concepts.load(path, name="stranger")
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_xl_folder, low_cpu_mem_usage=False)
    with pytest.raises(ValueError, match="two text encoders"):
        Concepts(pipe, covariance=tiny_xl_folder / "covariance.safetensors")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("<tim>", "<tim>"), ("<tom> and <double>", "same way"), ("cat " * 100, "tokens")],
)
def test_a_prompt_that_cannot_be_drawn_is_refused(concepts, prompt, message):
    with pytest.raises(ValueError, match=message):
        concepts.prompt(prompt)


def test_a_negative_prompt_names_no_concepts(concepts):
    with pytest.raises(ValueError, match="negative"):
        concepts.prompt("a cat", "<tom>")


@pytest.mark.parametrize("name", ["tom", "Rex", "my cat"])
def test_a_name_is_free_and_can_stand_in_a_prompt(concepts, tom, name):
    with pytest.raises(ValueError, match=name):
        concepts.load(tom, name=name)
