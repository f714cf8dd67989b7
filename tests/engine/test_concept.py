"""Concept files: what is stored, what is refused, and how many bytes it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.concepts import concept_file, random_concept
from tests.engine.full_size import SD15, SDXL, FullSize
from workers.engine.base_model import BaseModel
from workers.engine.errors import ConceptBaseMismatch, ConceptUnreadable, TrainingDiverged
from workers.engine.perfusion.concept import FORMAT, ConceptFile, KeyLock, concept_size_bytes


def rewrite(
    path: Path, *, metadata: dict[str, str] | None = None, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Change a concept file in place."""
    stored = load_file(path) | (tensors or {})
    facts = ConceptFile.load(path)
    described = {
        "format": FORMAT,
        "base_model": facts.base_model,
        "encoder": facts.encoder_fingerprint,
        "covariance": facts.covariance_sha256,
        "layer_widths": str(list(facts.layer_widths)),
        "superclass": facts.concept.superclass,
        "key_lock": facts.key_lock.value,
        "steps": str(facts.steps),
        "settings": "{}",
        "scores": "{}",
    }
    save_file(stored, path, metadata=described | (metadata or {}))


def test_a_file_comes_back_in_half_precision_with_all_its_facts(tiny: BaseModel, tmp_path: Path) -> None:
    file = concept_file(
        tiny,
        key_lock=KeyLock.GLOBAL,
        steps=400,
        settings={"steps": 400, "templates": ["a {}"]},
        scores={"loss": 0.25},
        gate_bias=0.65,
    )
    size = file.save(tmp_path / "tom.safetensors")
    again = ConceptFile.load(tmp_path / "tom.safetensors")
    assert size == (tmp_path / "tom.safetensors").stat().st_size
    for name, tensor in file.concept.tensors().items():
        assert torch.equal(again.concept.tensors()[name], tensor.half().float())
    assert replace(again, concept=file.concept) == file
    assert again.concept.superclass == "teddy bear"
    replace(file, gate_bias=None).save(tmp_path / "tom.safetensors")
    assert ConceptFile.load(tmp_path / "tom.safetensors").gate_bias is None


@pytest.mark.parametrize(
    ("family", "layers", "total", "sizes"),
    [(SD15, 16, 12_480, (29_568, 54_528)), (SDXL, 70, 83_200, (178_688, 345_088))],
    ids=["stable diffusion 1.5", "sdxl"],
)
def test_a_concept_takes_exactly_as_many_bytes_as_its_vectors_and_a_header(
    tmp_path: Path, family: FullSize, layers: int, total: int, sizes: tuple[int, int]
) -> None:
    for key_lock, expected in zip((KeyLock.LOCAL, KeyLock.TRAINED), sizes, strict=True):
        file = family.make_file(key_lock)
        assert (len(file.layer_widths), sum(file.layer_widths)) == (layers, total)
        size = file.save(tmp_path / "tom")
        header = 8 + int.from_bytes((tmp_path / "tom").read_bytes()[:8], "little")
        assert size - header == expected == concept_size_bytes(file.layer_widths, family.encoder_width, key_lock)


def test_a_concept_for_stable_diffusion_1_5_takes_under_32_kilobytes_and_with_its_keys_under_100(
    tmp_path: Path,
) -> None:
    assert SD15.make_file(KeyLock.LOCAL).save(tmp_path / "tom") <= 32 * 1024
    assert SD15.make_file(KeyLock.TRAINED).save(tmp_path / "tom") < 100 * 1024


def test_a_concept_for_sdxl_comes_back_with_an_embedding_for_each_encoder(tmp_path: Path) -> None:
    SDXL.make_file(KeyLock.LOCAL).save(tmp_path / "tom")
    assert [len(embedding) for embedding in ConceptFile.load(tmp_path / "tom").concept.embeddings] == [768, 1280]


def test_learned_keys_come_back_with_their_concept(tmp_path: Path, tiny: BaseModel) -> None:
    file = concept_file(tiny, random_concept(tiny, 1, keys=True), key_lock=KeyLock.TRAINED)
    file.save(tmp_path / "tom")
    again = ConceptFile.load(tmp_path / "tom").concept
    assert file.concept.key_outputs is not None
    assert again.key_outputs is not None
    assert torch.equal(again.key_outputs, file.concept.key_outputs.half().float())


def test_learned_keys_belong_to_the_lock_that_says_so(tmp_path: Path, tiny: BaseModel) -> None:
    concept_file(tiny).save(tmp_path / "tom")
    rewrite(tmp_path / "tom", metadata={"key_lock": "trained"})
    with pytest.raises(ConceptUnreadable, match="key_outputs"):
        ConceptFile.load(tmp_path / "tom")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"value_outputs": torch.full((176,), torch.nan)}, "not finite"),
        ({"embedding": torch.full((32,), torch.inf)}, "not finite"),
        ({"value_outputs": torch.zeros(7)}, "shape"),
        ({"superclass_encoding": torch.zeros(1, 32)}, "shape"),
        ({"target_input": torch.zeros(32)}, "zero"),
        ({"embedding_2": torch.zeros(8)}, "shape"),
        ({"embedding_2": torch.zeros(40)}, "shape"),
        ({"embedding_2": torch.zeros(0)}, "shape"),
        ({"embedding": torch.zeros(24), "embedding_2": torch.zeros(2, 4)}, "shape"),
    ],
)
def test_impossible_tensors_are_refused(
    tiny: BaseModel, tmp_path: Path, tensor: dict[str, torch.Tensor], message: str
) -> None:
    concept_file(tiny).save(tmp_path / "tom")
    assert tiny.projections.total_width == 176
    rewrite(tmp_path / "tom", tensors=tensor)
    with pytest.raises(ConceptUnreadable, match=message):
        ConceptFile.load(tmp_path / "tom")


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": "lockstep-concept/9"},
        {"key_lock": "both"},
        {"layer_widths": "176"},
        {"steps": "many"},
        {"gate_bias": "low"},
        {"scores": "{"},
    ],
)
def test_malformed_metadata_is_refused(tiny: BaseModel, tmp_path: Path, metadata: dict[str, str]) -> None:
    concept_file(tiny).save(tmp_path / "tom")
    rewrite(tmp_path / "tom", metadata=metadata)
    with pytest.raises(ConceptUnreadable):
        ConceptFile.load(tmp_path / "tom")


@pytest.mark.parametrize("content", [b"", b"not a safetensors file", b"\x00" * (5 << 20)])
def test_what_is_no_concept_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tom").write_bytes(content)
    with pytest.raises(ConceptUnreadable):
        ConceptFile.load(tmp_path / "tom")
    with pytest.raises(ConceptUnreadable):
        ConceptFile.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_fingerprint": "0" * 64}, "text encoder"),
        ({"covariance_sha256": "0" * 64}, "covariance"),
        ({"layer_widths": (80, 80)}, "layers"),
    ],
)
def test_a_concept_of_another_base_model_is_refused(tiny: BaseModel, change: dict[str, object], message: str) -> None:
    stranger = replace(concept_file(tiny), **change)  # type: ignore[arg-type]  # a table of fields
    with pytest.raises(ConceptBaseMismatch, match=message):
        tiny.adopt(stranger)
    assert tiny.adopt(concept_file(tiny)).superclass == "teddy bear"


def test_a_concept_whose_vectors_are_not_the_encoder_s_is_refused(tiny: BaseModel) -> None:
    concept = random_concept(tiny, 1)
    narrow = replace(
        concept,
        target_input=concept.target_input[:8],
        embedding=concept.embedding[:8],
        superclass_encoding=concept.superclass_encoding[:8],
    )
    with pytest.raises(ConceptBaseMismatch, match="text encoder"):
        tiny.adopt(concept_file(tiny, narrow))


def test_what_could_not_be_read_back_is_not_written(tiny: BaseModel, tmp_path: Path) -> None:
    file = concept_file(tiny)
    too_large = replace(file.concept, value_outputs=file.concept.value_outputs * 1e6)  # beyond half precision
    with pytest.raises(TrainingDiverged):
        replace(file, concept=too_large).save(tmp_path / "tom")
    assert not (tmp_path / "tom").exists()
