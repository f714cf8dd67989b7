"""SDXL-shaped base models: two text towers, a pooled prompt and sizes, on every path that a model is used by."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from tests.engine.concepts import concept_file
from tests.engine.conftest import edit_json, load, random_pictures
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import ConceptBaseMismatch, ModelUnsupported
from workers.engine.generation import GenerationRequest, generate
from workers.engine.perfusion.concept import ConceptFile, KeyLock
from workers.engine.perfusion.training import TrainingOrder, train_concept
from workers.engine.sampling import initial_noise, sample_ddim

NATIVE = (16, 16)


def drawn(base: BaseModel, prompt: str, negative: str = "", *, size: tuple[int, int] = NATIVE) -> Tensor:
    """Our three guided steps."""
    with torch.no_grad():
        return sample_ddim(
            base.denoiser,
            initial_noise([7], base.latent_shape(*size)),
            base.conditioner.condition([Prompt(prompt)], size),
            base.conditioner.condition([Prompt(negative)], size),
            steps=3,
            guidance=[4.0],
            on_step=lambda: None,
            should_stop=lambda: False,
        )


def drawn_by_diffusers(
    folder: Path, base: BaseModel, prompt: str, negative: str | None = None, *, size: tuple[int, int] = NATIVE
) -> Tensor:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    latents: Tensor = pipe(
        prompt,
        negative_prompt=negative,
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=initial_noise([7], base.latent_shape(*size)),
        width=size[0],
        height=size[1],
        output_type="latent",
    ).images
    return latents


def written(folder: Path, prediction: str = "epsilon", **index: object) -> Path:
    build_tiny_pipeline(folder, prediction=prediction, family="sdxl", vae="kl")
    # SDXL's own spacing. By the other one, three steps do not divide the schedule, and diffusers ends each of them one
    # timestep beside where the next begins.
    edit_json(folder / "scheduler" / "scheduler_config.json", timestep_spacing="leading")
    edit_json(folder / "model_index.json", **index)
    return folder


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("prompt", "negative"), [("a red cat on the hat", None), ("the dog", "a teddy bear")])
def test_it_draws_what_diffusers_own_pipeline_does(
    tmp_path: Path, prediction: str, prompt: str, negative: str | None
) -> None:
    folder = written(tmp_path, prediction)
    base = load(folder)
    expected = drawn_by_diffusers(folder, base, prompt, negative)
    torch.testing.assert_close(drawn(base, prompt, negative or ""), expected, atol=1e-4, rtol=1e-4)


def test_it_tells_other_sizes_as_diffusers_own_pipeline_does(tmp_path: Path) -> None:
    folder, size = written(tmp_path), (32, 16)
    base = load(folder)
    expected = drawn_by_diffusers(folder, base, "a red cat", size=size)
    torch.testing.assert_close(drawn(base, "a red cat", size=size), expected, atol=1e-4, rtol=1e-4)


def test_an_empty_prompt_is_read_where_the_pipeline_does_not_say_otherwise(tmp_path: Path) -> None:
    folder = written(tmp_path, force_zeros_for_empty_prompt=False)
    base = load(folder)
    expected = drawn_by_diffusers(folder, base, "a red cat")
    torch.testing.assert_close(drawn(base, "a red cat"), expected, atol=1e-4, rtol=1e-4)


def test_what_a_sample_is_told_beside_its_keys_follows_it_through_batches(tiny_xl: BaseModel) -> None:
    with torch.no_grad():
        small = tiny_xl.conditioner.condition([Prompt("a cat"), Prompt("the dog")])
        wide = tiny_xl.conditioner.condition([Prompt("a hat")], (32, 16))
    both = Conditioning.concatenate([small, wide]).select(torch.tensor([2, 0])).added
    assert both is not None
    assert small.added is not None
    assert wide.added is not None
    assert both.time_ids.tolist() == [[16, 32, 0, 0, 16, 32], [16, 16, 0, 0, 16, 16]]  # native where nothing is said
    assert torch.equal(both.pooled, torch.stack([wide.added.pooled[0], small.added.pooled[0]]))


def test_the_picture_depends_on_the_size_that_the_network_is_told(tiny_xl: BaseModel) -> None:
    x, t = initial_noise([1], (4, 8, 8)), torch.tensor([500])
    with torch.no_grad():
        native, other = (tiny_xl.conditioner.condition([Prompt("a cat")], size) for size in (None, (32, 32)))
        assert not torch.equal(tiny_xl.denoiser.output(x, t, native), tiny_xl.denoiser.output(x, t, other))


@pytest.mark.parametrize("key_lock", list(KeyLock))
def test_a_concept_is_learned_saved_and_drawn(tiny_xl: BaseModel, tmp_path: Path, key_lock: KeyLock) -> None:
    order = TrainingOrder(
        pictures=random_pictures(2),
        superclass="teddy bear",
        config=replace(tiny_xl.perfusion, key_lock=key_lock.value),
        seed=0,
        checkpoints=tmp_path,
    )
    train_concept(tiny_xl, order).save(tmp_path / "tom")
    learned = tiny_xl.adopt(ConceptFile.load(tmp_path / "tom"))
    word = tiny_xl.text.token_embeddings(tiny_xl.text.tokens("bear")[0])
    assert [len(embedding) for embedding in learned.embeddings] == [32, 24]
    assert not any(torch.equal(one, other) for one, other in zip(learned.embeddings, word, strict=True))
    use = ConceptUse("tom", learned, gate_bias=0.5, gate_temperature=0.15, key_lock=key_lock)
    requests = [request("a red <tom>", use), request("a red teddy bear"), request("a <tom> on a hat", use, seed=2)]
    pictures = drawn_pictures(tiny_xl, requests)
    assert np.abs(pictures[0] - pictures[1]).max() > 1
    for alone, together in zip((drawn_pictures(tiny_xl, [one])[0] for one in requests), pictures, strict=True):
        assert np.abs(alone - together).max() <= 1  # grey level


def test_a_training_resumes_bit_for_bit(tiny_xl: BaseModel, tmp_path: Path) -> None:
    written: list[Path] = []
    order = TrainingOrder(
        pictures=random_pictures(2),
        superclass="cat",
        config=tiny_xl.perfusion,
        seed=0,
        checkpoints=tmp_path,
        on_checkpoint=lambda _step, path: written.append(path),
    )
    whole = train_concept(tiny_xl, order).concept
    resumed = train_concept(tiny_xl, replace(order, resume_from=written[0])).concept
    assert whole.digest == resumed.digest


def request(prompt: str, *uses: ConceptUse, seed: int = 1) -> GenerationRequest:
    return GenerationRequest(prompt, seed=seed, steps=2, guidance=4.0, width=16, height=16, concepts=uses)


def drawn_pictures(base: BaseModel, requests: list[GenerationRequest]) -> list[np.ndarray]:
    answers = generate(base, requests, batch_size=8, on_progress=lambda *_: None, should_stop=lambda: False)
    return [np.asarray(answer).astype(int) for answer in answers]


def test_a_concept_of_one_family_is_refused_by_the_other(tiny: BaseModel, tiny_xl: BaseModel) -> None:
    for own, other in ((tiny, tiny_xl), (tiny_xl, tiny)):
        file = concept_file(own)
        assert own.adopt(file).superclass == "teddy bear"
        with pytest.raises(ConceptBaseMismatch, match="text encoder"):
            other.adopt(replace(file, encoder_fingerprint=other.fingerprint))  # even if it lies


@pytest.mark.parametrize(
    "change",
    [
        {"cross_attention_dim": 32},
        {"addition_embed_type": None},
        {"projection_class_embeddings_input_dim": 20 + 5 * 8},  # a refiner's, which is told five sizes
    ],
)
def test_a_network_that_listens_to_something_else_is_refused(
    tiny_xl: BaseModel, tiny_xl_folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(tiny_xl_folder, tmp_path / "model"))
    unet = type(tiny_xl.denoiser.unet).from_config(dict(tiny_xl.denoiser.unet.config) | change)
    unet.save_pretrained(folder / "unet")
    with pytest.raises(ModelUnsupported):
        load(folder)


def test_students_are_told_an_earlier_timestep_unless_the_folder_says_another(
    tiny_xl: BaseModel, tiny: BaseModel, tiny_xl_folder: Path, tmp_path: Path
) -> None:
    assert (tiny.distillation.student_timesteps, tiny_xl.distillation.student_timesteps) == ((999,), (399,))
    folder = Path(shutil.copytree(tiny_xl_folder, tmp_path / "model"))
    edit_json(folder / "lockstep.json", distillation={"student_timesteps": [749]})
    assert load(folder).distillation.student_timesteps == (749,)
