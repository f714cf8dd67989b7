"""Which concept each placeholder stands for, and what a model can be asked for."""

from __future__ import annotations

import pytest

from core.catalog.facts import ModelFacts, StudentFacts
from core.concepts.models import Concept
from core.errors import (
    ConceptUnused,
    GuidanceUnsupported,
    Invalid,
    KeyLockUnsupported,
    NotFound,
    PlaceholderTaken,
    SizeUnsupported,
    StepsUnsupported,
    UnknownPlaceholder,
)
from core.jobs.params import Sweep
from core.jobs.requests import (
    ConceptChoice,
    GenerationRequest,
    bind_concepts,
    check_guidance,
    check_pictures,
    check_steps,
    check_sweep,
    concept_use,
    mentioned,
    picture_size,
    placeholders,
    superclass_warnings,
)

TOM, ANN = Concept(id="cpt_1", name="tom"), Concept(id="cpt_2", name="ann")
KNOWN = {concept.id: concept for concept in (TOM, ANN)} | {concept.name: concept for concept in (TOM, ANN)}
FACTS = ModelFacts(name="storybook", size=64, size_multiple=64, max_size=256)


def bound(prompt, *choices):
    request = GenerationRequest(prompt, concepts=[ConceptChoice(**choice) for choice in choices])
    return [(use.placeholder, use.concept.name) for use in bind_concepts(request, KNOWN)]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("a cat", []),
        ("<tom>", ["tom"]),
        ("<tom> and <ann>, <tom> again", ["tom", "ann"]),
        ("<tom-2>", ["tom-2"]),
        ("<Tom> <tom_cat>", ["Tom", "tom_cat"]),  # mistakes to be told of, not words
        ("a < b > c, 1 <3", []),
        ("<tom", []),
        ("<<tom>>", ["tom"]),
        ("<>", []),
    ],
)
def test_the_placeholders_of_a_prompt(prompt, names):
    assert placeholders(prompt) == names


@pytest.mark.parametrize(
    ("prompt", "choices", "expected"),
    [
        ("a cat", [], []),
        ("<tom>", [], [("tom", "tom")]),
        ("<tom>", [{"concept": "tom"}], [("tom", "tom")]),
        ("<tom>", [{"concept": "cpt_1"}], [("tom", "tom")]),
        ("<him>", [{"concept": "tom", "placeholder": "him"}], [("him", "tom")]),
        ("<him> <her>", [{"concept": "tom", "placeholder": "him"}, {"concept": "ann", "placeholder": "her"}],
         [("him", "tom"), ("her", "ann")]),
        ("<ann>", [{"concept": "tom", "placeholder": "ann"}], [("ann", "tom")]),  # what is listed comes first
        ("<one> <two>", [{"concept": "tom", "placeholder": "one"}, {"concept": "tom", "placeholder": "two"}],
         [("one", "tom"), ("two", "tom")]),
        ("<him> and <ann>", [{"concept": "tom", "placeholder": "him"}], [("him", "tom"), ("ann", "ann")]),
    ],
)  # fmt: skip
def test_each_placeholder_stands_for_what_is_listed_or_else_for_the_concept_of_its_name(prompt, choices, expected):
    assert bound(prompt, *choices) == expected


@pytest.mark.parametrize(
    ("prompt", "choices", "error", "param"),
    [
        ("<rex>", [], UnknownPlaceholder, "prompt"),
        ("<cpt_1>", [], UnknownPlaceholder, "prompt"),  # an id is no name
        ("a cat", [{"concept": "tom"}], ConceptUnused, "concepts.0"),
        ("<tom>", [{"concept": "tom"}, {"concept": "ann"}], ConceptUnused, "concepts.1"),
        ("<tom>", [{"concept": "rex"}], NotFound, "concepts.0"),
        ("<tom>", [{"concept": "tom"}, {"concept": "ann", "placeholder": "tom"}], PlaceholderTaken, "concepts.1"),
    ],
)
def test_what_does_not_fit_together_is_refused_where_it_stands(prompt, choices, error, param):
    with pytest.raises(error) as refusal:
        bound(prompt, *choices)
    assert refusal.value.param == param


def test_a_negative_prompt_names_no_concepts():
    with pytest.raises(UnknownPlaceholder) as refusal:
        bind_concepts(GenerationRequest("<tom>", negative_prompt="<ann>"), KNOWN)
    assert refusal.value.param == "negative_prompt"


def test_whatever_may_be_a_concept_is_looked_up():
    request = GenerationRequest("<tom> and <her>", concepts=[ConceptChoice("cpt_2", placeholder="her")])
    assert mentioned(request) == {"tom", "her", "cpt_2"}


def test_what_a_use_leaves_open_comes_from_the_training_and_the_model():
    (use,) = bind_concepts(GenerationRequest("<tom>"), KNOWN)
    made = concept_use(use, FACTS, version=3, file_id="file_1", trained="global", recommended_bias=None)
    assert (made.key_lock, made.gate_bias, made.gate_temperature) == ("global", 0.5, 0.15)


@pytest.mark.parametrize("wanted", ["local", "global", "trained"])
def test_a_concept_with_keys_of_its_own_takes_every_lock(wanted):
    (use,) = bind_concepts(GenerationRequest("<tom>", concepts=[ConceptChoice("tom", key_lock=wanted)]), KNOWN)
    made = concept_use(use, FACTS, version=1, file_id="file_1", trained="trained", recommended_bias=None)
    assert made.key_lock == wanted


@pytest.mark.parametrize("trained", ["local", "global"])
def test_keys_that_were_never_learned_cannot_be_drawn_with(trained):
    (use,) = bind_concepts(GenerationRequest("<tom>", concepts=[ConceptChoice("tom", key_lock="trained")]), KNOWN)
    with pytest.raises(KeyLockUnsupported) as refusal:
        concept_use(use, FACTS, version=1, file_id="file_1", trained=trained, recommended_bias=None)
    assert refusal.value.param == "concepts.0"


@pytest.mark.parametrize(
    ("choice", "recommended", "bias"),
    [
        ({}, 0.65, 0.65),
        ({}, None, 0.7),  # the model's own
        ({}, 0.0, 0.0),
        ({"gate_bias": 0.4}, 0.65, 0.4),
        ({"gate_bias": 0.0}, 0.65, 0.0),
        ({"key_lock": "local"}, 0.65, 0.65),
        ({"key_lock": "global"}, 0.65, 0.5),  # nothing was found out about that lock
    ],
)
def test_a_bias_is_the_requests_or_the_recommended_one_of_its_key_lock_or_the_models(choice, recommended, bias):
    (use,) = bind_concepts(GenerationRequest("<tom>", concepts=[ConceptChoice("tom", **choice)]), KNOWN)
    made = concept_use(use, FACTS, version=1, file_id="file_1", trained="local", recommended_bias=recommended)
    assert made.gate_bias == bias


HIM = {"concept": "tom", "placeholder": "him"}


@pytest.mark.parametrize(
    ("swept", "choices", "error", "param"),
    [
        ("tom", [HIM], ConceptUnused, "sweep.concept"),  # it is called otherwise here
        ("rex", [HIM], ConceptUnused, "sweep.concept"),
        ("him", [HIM | {"gate_bias": 0.0}], Invalid, "concepts.0.gate_bias"),
    ],
)
def test_a_dial_that_the_prompt_lacks_or_that_is_set_already_is_not_swept(swept, choices, error, param):
    request = GenerationRequest("<him> and <ann>", concepts=[ConceptChoice(**choice) for choice in choices])
    with pytest.raises(error) as refusal:
        check_sweep(Sweep(concept=swept, dial="gate_bias", values=(0.4, 0.5)), bind_concepts(request, KNOWN))
    assert refusal.value.param == param


@pytest.mark.parametrize("choice", [HIM, HIM | {"gate_temperature": 0.2}])
@pytest.mark.parametrize("swept", ["him", "ann"])
def test_any_other_dial_of_the_prompt_may_be(choice, swept):
    request = GenerationRequest("<him> and <ann>", concepts=[ConceptChoice(**choice)])
    check_sweep(Sweep(concept=swept, dial="gate_bias", values=(0.4, 0.5)), bind_concepts(request, KNOWN))


@pytest.mark.parametrize(("wanted", "size"), [(None, (64, 64)), ((64, 256), (64, 256)), ((128, 64), (128, 64))])
def test_a_size_the_model_can_draw(wanted, size):
    assert picture_size(FACTS, wanted) == size


@pytest.mark.parametrize("wanted", [(0, 64), (32, 64), (64, 65), (320, 64), (64, 99999)])
def test_a_size_it_cannot(wanted):
    with pytest.raises(SizeUnsupported):
        picture_size(FACTS, wanted)


def test_sides_are_no_shorter_than_the_model_draws():
    facts = ModelFacts(name="small", size=64, size_multiple=8, min_size=12, max_size=64)
    assert picture_size(facts, (16, 64)) == (16, 64)
    with pytest.raises(SizeUnsupported, match="from 16 to 64"):
        picture_size(facts, (8, 64))


SWIFT = FACTS.as_student("swift", StudentFacts(teacher="storybook", timesteps=(999, 499)))
TURBO = ModelFacts(name="turbo", guidance="none", max_steps=4)
LCM = ModelFacts(name="lcm", guidance="embedded")


@pytest.mark.parametrize(
    ("facts", "asked", "refused"),  # the parameter that is refused, if any
    [
        (FACTS, {"guidance": 7.5, "negative_prompt": "a dog"}, None),
        *((facts, {"guidance": guidance}, None) for facts in (SWIFT, TURBO) for guidance in (None, 0, 1)),
        *((facts, {"guidance": 2.0}, "guidance") for facts in (SWIFT, TURBO)),
        *((facts, {"negative_prompt": "a dog"}, "negative_prompt") for facts in (SWIFT, TURBO, LCM)),
        (LCM, {"guidance": 7.5}, None),
    ],
)
def test_guidance_is_refused_where_it_is_built_in_and_negative_prompts_where_nothing_reads_them(facts, asked, refused):
    request = GenerationRequest("a cat", **asked)
    if refused is None:
        check_guidance(facts, request)
        return
    with pytest.raises(GuidanceUnsupported, match=facts.name) as refusal:
        check_guidance(facts, request)
    assert refusal.value.param == refused


@pytest.mark.parametrize(
    ("facts", "steps", "draws"),
    [(FACTS, 200, True), (TURBO, 4, True), (TURBO, 5, False), (SWIFT, 2, True), (SWIFT, 1, False)],
)
def test_steps_are_those_of_a_student_and_at_most_those_of_another_model(facts, steps, draws):
    check_steps(facts, None)
    if draws:
        check_steps(facts, steps)
        return
    with pytest.raises(StepsUnsupported, match=facts.name):
        check_steps(facts, steps)


def test_a_picture_is_listed_once():
    check_pictures(["file_1", "file_2"])
    with pytest.raises(Invalid) as refusal:
        check_pictures(["file_1", "file_2", "file_1"])
    assert refusal.value.param == "images.2"


@pytest.mark.parametrize(
    ("superclasses", "superclass", "warned"),
    [((), "dragon", False), (("cat",), "cat", False), (("cat",), "dragon", True)],
)
def test_a_word_the_model_does_not_list_is_a_warning(superclasses, superclass, warned):
    facts = ModelFacts(name="storybook", superclasses=superclasses)
    assert bool(superclass_warnings(facts, superclass)) is warned
