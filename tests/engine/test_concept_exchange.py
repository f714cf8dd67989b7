"""What the engine writes, the API reads: one format, kept by two readers that share no code."""

from __future__ import annotations

from pathlib import Path

from core.catalog.facts import ConceptSpace, read_facts
from core.concepts import header
from tests.engine.concepts import concept_file
from tests.engine.conftest import BUNDLED_MODEL
from workers.engine.base_model import BaseModel
from workers.engine.perfusion import concept
from workers.engine.perfusion.concept import KeyLock
from workers.engine.prepare import concept_space


def test_a_file_that_the_engine_saves_is_read_with_its_facts(tiny: BaseModel, tmp_path: Path):
    for key_lock in (KeyLock.LOCAL, KeyLock.GLOBAL):
        concept_file(tiny, key_lock=key_lock, steps=400, scores={"loss": 0.25}).save(tmp_path / "tom")
        read = header.read_header((tmp_path / "tom").read_bytes())
        assert (read.base_model, read.superclass, read.key_lock) == ("tiny", "teddy bear", key_lock.value)
        assert read.scores == {"loss": 0.25}
        assert read.misfit(ConceptSpace.model_validate(concept_space(tiny))) is None


def test_a_file_of_a_model_with_two_text_encoders_is_read_alike(tiny_xl: BaseModel, tmp_path: Path):
    concept_file(tiny_xl).save(tmp_path / "tom")
    read = header.read_header((tmp_path / "tom").read_bytes())
    assert read.misfit(ConceptSpace.model_validate(concept_space(tiny_xl))) is None
    assert read.misfit(read.space.model_copy(update={"encoder": "0" * 64})) is not None


def test_both_readers_mean_the_same_format_and_the_same_bound():
    assert (header.FORMAT, header.MAX_BYTES) == (concept.FORMAT, concept._MAX_FILE_BYTES)


def test_the_bundled_model_says_which_concepts_fit_it(storybook: BaseModel):
    """Weights that were trained anew need `lockstep.json` written anew: see the stage `card` of the recipe."""
    assert read_facts(str(BUNDLED_MODEL)).concept_space == ConceptSpace.model_validate(concept_space(storybook))
