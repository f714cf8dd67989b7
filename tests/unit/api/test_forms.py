"""What forms say, in the API's words; and what is copied from them."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import FormData, UploadFile

from api.errors import makes_job
from api.pages.forms import as_generation, as_training, dials_of
from api.pages.snippets import as_curl, as_python, request_body
from core.jobs.params import ConceptUse, GenerationParams, PictureFile

TOM = ConceptUse(
    concept_id="cpt_1", version=2, file_id="file_1", name="him", key_lock="local", gate_bias=0.6, gate_temperature=0.1
)


def drawing(**changes: Any) -> GenerationParams:
    known = {"prompt": "<him>", "model_id": "mdl_1", "steps": 50, "guidance": 6.0, "n": 1, "seed": 7}
    return GenerationParams.model_validate({**known, "width": 64, "height": 32, "concepts": (TOM,), **changes})


def test_an_empty_field_says_nothing():
    request = as_generation(FormData({"prompt": "a cat", "steps": "", "guidance": "", "model": "", "seed": "0"}))
    assert (request.steps, request.guidance, request.model, request.seed) == (None, None, None, 0)


def test_dials_count_for_the_concepts_that_the_prompt_names():
    said = FormData({"prompt": "<tom> and <ann>", "bias.tom": "0.4", "lock.ann": "global", "bias.rex": "0.9"})
    concepts = as_generation(said).concepts
    assert [(one.name, one.gate_bias, one.key_lock) for one in concepts] == [
        ("tom", 0.4, None),
        ("ann", None, "global"),
    ]
    assert dials_of(said, "rex") == {"gate_bias": "0.9"}


def test_what_is_fixed_counts_whatever_the_form_says():
    assert as_generation(FormData({"prompt": "a cat", "n": "9"}), n=1).n == 1


def test_what_is_wrong_is_told_as_of_a_body():
    with pytest.raises(RequestValidationError) as caught:
        as_generation(FormData({"prompt": "<tom>", "bias.tom": "2"}))
    assert caught.value.errors()[0]["loc"] == ("body", "concepts", 0, "gate_bias")


def test_a_training_has_every_picture_and_mirrors_them_if_that_is_ticked():
    fields: list[tuple[str, str | UploadFile]] = [
        ("concept", "tom"),
        ("superclass", "cat"),
        ("images", "file_1"),
        ("images", "file_2"),
    ]
    request = as_training(FormData(fields))
    assert (request.images, request.flip) == (["file_1", "file_2"], False)
    assert as_training(FormData([*fields, ("flip", "yes")])).flip


@pytest.mark.parametrize("path", ["drafts", "generations", "comparisons", "trainings", "pictures/file_1/reproduce"])
def test_forms_that_make_jobs_count_as_requests_that_do(path: str):
    assert makes_job("POST", f"/studio/{path}")
    assert not makes_job("GET", f"/studio/{path}")


def test_code_says_only_what_differs_from_what_is_assumed():
    assert request_body(drawing(), "storybook") == {
        "prompt": "<him>",
        "concepts": [
            {"id": "cpt_1", "as": "him", "version": 2, "key_lock": "local", "gate_bias": 0.6, "gate_temperature": 0.1}
        ],
        "model": "storybook",
        "steps": 50,
        "guidance": 6.0,
        "seed": 7,
        "size": "64x32",
    }
    lossy = drawing(negative_prompt="rain", file=PictureFile(format="webp", quality=80, metadata=False))
    more = {"negative_prompt": "rain", "format": "webp", "quality": 80, "metadata": False}
    assert request_body(lossy, "storybook") == request_body(drawing(), "storybook") | more


def test_curl_gets_the_body_unharmed_by_the_shell():
    body = {"prompt": 'it\'s "$HOME" `x` \\\nJSON'}
    told = as_curl(body, "http://127.0.0.1:8000")
    assert json.loads(told.split("<<'JSON'\n")[1].removesuffix("\nJSON\n")) == body
    assert shlex.split(told.split("-H")[0])[:3] == ["curl", "-sS", "http://127.0.0.1:8000/v1/generations"]


def test_the_program_is_python():
    compile(as_python(request_body(drawing(prompt='it\'s "<him>"\n'), "storybook"), "http://x"), "code", "exec")
