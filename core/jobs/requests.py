"""What a request for a job means, before anything is looked up: placeholders, sizes, defaults. Pure.

A prompt names a concept as ``<tom>``, where ``tom`` is the concept's name or what the request calls it (``as``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.catalog.facts import ModelFacts
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
from core.jobs.params import ConceptUse, KeyLock, PictureFile, Sweep

# Wider than a name may be, so that `<Tom>` is told to be a mistake instead of being drawn as words.
_PLACEHOLDER = re.compile(r"<([\w-]+)>")


@dataclass(frozen=True)
class TrainingRequest:
    """Learn ``concept`` from pictures; None leaves it to the concept, the model or chance."""

    concept: str
    superclass: str | None
    file_ids: Sequence[str]
    model: str | None = None
    key_lock: KeyLock | None = None
    steps: int | None = None
    seed: int | None = None
    flip: bool = True
    continue_from: int | None = None  # a version, whose pictures are learned from as well


@dataclass(frozen=True)
class ConceptChoice:
    """A concept that a generation lists; None leaves it to the concept's version or the model."""

    concept: str  # name or id; of one that another tenant granted, its id, or `owner-id/name`
    placeholder: str | None = None
    version: int | None = None
    key_lock: KeyLock | None = None
    gate_bias: float | None = None
    gate_temperature: float | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """Draw ``n`` pictures of a prompt, one at each value of a sweep; None leaves it to the model or chance."""

    prompt: str
    negative_prompt: str = ""
    concepts: Sequence[ConceptChoice] = field(default_factory=tuple)
    model: str | None = None
    steps: int | None = None
    guidance: float | None = None
    n: int = 1
    seed: int | None = None
    size: tuple[int, int] | None = None
    sweep: Sweep | None = None
    file: PictureFile = field(default_factory=PictureFile)
    draft: bool = False  # in one step by a student, whatever model is named


@dataclass(frozen=True)
class BoundConcept:
    """A concept and the placeholder that stands for it; ``param`` names where the request chose it."""

    placeholder: str
    concept: Concept
    choice: ConceptChoice
    param: str


def placeholders(prompt: str) -> list[str]:
    """The names a prompt mentions, each once, in order."""
    return list(dict.fromkeys(_PLACEHOLDER.findall(prompt)))


def mentioned(request: GenerationRequest) -> set[str]:
    """Every name or id that might be one of the tenant's concepts."""
    return {choice.concept for choice in request.concepts} | set(placeholders(request.prompt))


def bind_concepts(request: GenerationRequest, known: Mapping[str, Concept]) -> list[BoundConcept]:
    """Which concept each placeholder stands for; ``known`` holds the tenant's concepts by name and by id.

    A placeholder that the request does not list is the concept of that name. Raises UnknownPlaceholder, NotFound,
    PlaceholderTaken and ConceptUnused.
    """
    if stray := placeholders(request.negative_prompt):
        detail = f"A negative prompt cannot name concepts, but it has <{stray[0]}>."
        raise UnknownPlaceholder(detail, param="negative_prompt")
    bound: dict[str, BoundConcept] = {}
    for place, choice in enumerate(request.concepts):
        listed = _listed(choice, known, param=f"concepts.{place}")
        if listed.placeholder in bound:
            raise PlaceholderTaken(
                f"Two concepts answer to <{listed.placeholder}>: give one another name with 'as'.", param=listed.param
            )
        bound[listed.placeholder] = listed
    named = placeholders(request.prompt)
    for name in named:
        if name in bound:
            continue
        concept = known.get(name)
        if concept is None or concept.name != name:
            raise UnknownPlaceholder(f"The prompt names <{name}>, which is no concept of yours.", param="prompt")
        bound[name] = BoundConcept(name, concept, ConceptChoice(name), param="prompt")
    for name, use in bound.items():
        if name not in named:
            raise ConceptUnused(f"The prompt never names <{name}>.", param=use.param)
    return list(bound.values())


def _listed(choice: ConceptChoice, known: Mapping[str, Concept], *, param: str) -> BoundConcept:
    concept = known.get(choice.concept)
    if concept is None:
        raise NotFound(f"No concept {choice.concept}.", param=param)
    return BoundConcept(choice.placeholder or concept.name, concept, choice, param)


def check_sweep(sweep: Sweep, bound: Sequence[BoundConcept]) -> None:
    """Raise ConceptUnused where the prompt lacks the swept concept, and Invalid where its dial is also set for good."""
    swept = next((use for use in bound if use.placeholder == sweep.concept), None)
    if swept is None:
        raise ConceptUnused(f"The prompt never names <{sweep.concept}>.", param="sweep.concept")
    if getattr(swept.choice, sweep.dial) is not None:
        detail = f"The {sweep.dial} of <{sweep.concept}> is swept: give it no value of its own."
        raise Invalid(detail, param=f"{swept.param}.{sweep.dial}")


def concept_use(
    bound: BoundConcept,
    facts: ModelFacts,
    *,
    version: int,
    file_id: str,
    trained: KeyLock,
    recommended_bias: float | None,
    owner_id: str | None = None,
) -> ConceptUse:
    """The concept as the generation will use it: what the request left open comes from its training and the model.

    The recommended bias was found with the key lock it was trained with, and says nothing of another one. Raises
    KeyLockUnsupported.
    """
    choice = bound.choice
    key_lock = choice.key_lock or trained
    if key_lock == "trained" and trained != "trained":
        raise KeyLockUnsupported(f"<{bound.placeholder}> learned no keys of its own.", param=bound.param)
    recommended = recommended_bias if key_lock == trained else None
    bias = next(bias for bias in (choice.gate_bias, recommended, facts.gate_bias[key_lock]) if bias is not None)
    return ConceptUse(
        concept_id=bound.concept.id,
        version=version,
        file_id=file_id,
        name=bound.placeholder,
        key_lock=key_lock,
        gate_bias=bias,
        gate_temperature=choice.gate_temperature or facts.gate_temperature,
        owner_id=owner_id,
    )


def picture_size(facts: ModelFacts, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height in pixels; raises SizeUnsupported."""
    width, height = wanted or (facts.size, facts.size)
    step, least, most = facts.size_multiple, facts.least_size, facts.max_size
    if any(side % step or not least <= side <= most for side in (width, height)):
        bounds = f"multiples of {step} from {least} to {most}"
        detail = f"The model {facts.name!r} draws sides of {bounds}: not {width}x{height}."
        raise SizeUnsupported(detail, param="size")
    return width, height


def check_steps(facts: ModelFacts, steps: int | None) -> None:
    """Raise StepsUnsupported for a number of steps that the model does not draw in."""
    if steps is None:
        return
    if facts.student is not None and steps != (own := len(facts.student.timesteps)):
        raise StepsUnsupported(f"The student {facts.name!r} draws in {own} steps, not {steps}.", param="steps")
    if steps > facts.max_steps:
        detail = f"The model {facts.name!r} draws in at most {facts.max_steps} steps, not {steps}."
        raise StepsUnsupported(detail, param="steps")


def check_guidance(facts: ModelFacts, request: GenerationRequest) -> None:
    """Raise GuidanceUnsupported for guidance, or a negative prompt, of a model that has its guidance built in.

    A guidance of 0 or 1 asks such a model for none. One that reads the guidance has no branch for a negative prompt.
    """
    who = f"The {'student' if facts.student else 'model'} {facts.name!r}"
    if not facts.takes_guidance and request.guidance not in (None, 0, 1):
        raise GuidanceUnsupported(f"{who} takes no guidance: leave it out.", param="guidance")
    if request.negative_prompt and not (facts.takes_guidance and facts.guidance == "classifier_free"):
        raise GuidanceUnsupported(f"{who} takes no negative prompt.", param="negative_prompt")


def check_pictures(file_ids: Sequence[str]) -> None:
    """Raise Invalid for a picture that is listed twice."""
    for place, file_id in enumerate(file_ids):
        if file_id in file_ids[:place]:
            raise Invalid(f"{file_id} is listed twice.", param=f"images.{place}")


def superclass_warnings(facts: ModelFacts, superclass: str) -> list[dict[str, str]]:
    """A warning where the model was not made to know the word."""
    if not facts.superclasses or superclass in facts.superclasses:
        return []
    known = ", ".join(facts.superclasses)
    message = f"The model {facts.name!r} does not list {superclass!r}; it knows: {known}."
    return [{"code": "superclass-unlisted", "message": message, "param": "superclass"}]
