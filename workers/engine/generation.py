"""Requests for pictures, answered in batches that mix any prompts, concepts, seeds and guidance scales.

A batch shares the model, the size and the number of steps; everything else is per sample. A request that cannot be
rendered gets its error in its own place and costs the others nothing. How each kind of
model draws is `samplers.py`'s.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image

from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import EngineError, Interrupted, PermanentError, SettingsInvalid
from workers.engine.pictures import to_pictures
from workers.engine.samplers import check_settings, draw_latents, takes_unconditional

_MAX_GUIDANCE = 50.0
_SEEDS = range(2**63)


@dataclass(frozen=True)
class GenerationRequest:
    """One picture to draw; ``width`` and ``height`` in pixels."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    negative_prompt: str = ""
    concepts: tuple[ConceptUse, ...] = ()


@dataclass(frozen=True)
class _Planned:
    """A request that passed every check, with its own conditionings (of one sample each)."""

    index: int
    request: GenerationRequest
    conditional: Conditioning
    unconditional: Conditioning | None  # None where the model takes none


def generate(
    base: BaseModel,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> list[Image.Image | EngineError]:
    """Draw every request; the answer at each place is its picture, or why there is none.

    ``on_progress`` gets the sampling steps done and those due over all batches. ``should_stop`` is asked before every
    step and raises Interrupted. Errors of the device (out of memory) are raised, as they say nothing about a request.
    """
    answers: list[Image.Image | EngineError | None] = [None] * len(requests)
    planned: list[_Planned] = []
    for index, request in enumerate(requests):
        try:
            planned.append(_plan(base, index, request))
        except PermanentError as error:
            answers[index] = error
    batches = list(_batches(planned, batch_size))
    due, done = sum(batch[0].request.steps for batch in batches), 0

    def on_step() -> None:
        nonlocal done
        done += 1
        on_progress(done, due)

    for batch in batches:
        try:
            pictures = _draw(base, batch, on_step, should_stop)
        except Interrupted as interrupted:
            raise Interrupted(done) from interrupted
        for plan, picture in zip(batch, pictures, strict=True):
            answers[plan.index] = picture
    return [answer for answer in answers if answer is not None]


def _plan(base: BaseModel, index: int, request: GenerationRequest) -> _Planned:
    """Check a request and condition it; raises the PermanentError that is its answer."""
    base.latent_shape(request.width, request.height)
    if not (math.isfinite(request.guidance) and 0 <= request.guidance <= _MAX_GUIDANCE):
        raise SettingsInvalid(f"guidance must be from 0 to {_MAX_GUIDANCE:g}, not {request.guidance}")
    check_settings(base, steps=request.steps, guidance=request.guidance, negative_prompt=request.negative_prompt)
    if request.seed not in _SEEDS:
        raise SettingsInvalid(f"the seed must be from 0 to 2**63 - 1, not {request.seed}")
    size = (request.width, request.height)
    with torch.no_grad():
        conditional = base.conditioner.condition([Prompt(request.prompt, request.concepts)], size)
        blank = Prompt(request.negative_prompt)
        unconditional = base.conditioner.condition([blank], size) if takes_unconditional(base) else None
    return _Planned(index, request, conditional, unconditional)


def _batches(planned: Sequence[_Planned], batch_size: int) -> Iterator[list[_Planned]]:
    """Group by what a batch must share, in order of first appearance."""
    groups: OrderedDict[tuple[int, int, int], list[_Planned]] = OrderedDict()
    for plan in planned:
        request = plan.request
        groups.setdefault((request.width, request.height, request.steps), []).append(plan)
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


@torch.inference_mode()  # no_grad's bookkeeping is a twentieth of a small network's time
def _draw(
    base: BaseModel, batch: Sequence[_Planned], on_step: Callable[[], None], should_stop: Callable[[], bool]
) -> list[Image.Image]:
    first = batch[0].request
    unconditional = [plan.unconditional for plan in batch if plan.unconditional is not None]
    latents = draw_latents(
        base,
        [plan.request.seed for plan in batch],
        base.latent_shape(first.width, first.height),
        Conditioning.concatenate([plan.conditional for plan in batch]),
        Conditioning.concatenate(unconditional) if unconditional else None,
        steps=first.steps,
        guidance=[plan.request.guidance for plan in batch],
        on_step=on_step,
        should_stop=should_stop,
    )
    return to_pictures(base.autoencoder.decode(latents))


class ModelCache:
    """The most recently used models, at most ``capacity`` U-Nets, least recently used out first.

    A student is named by its teacher and its file. It shares what its teacher holds, so a teacher stays while one of
    its students is in use.
    """

    def __init__(
        self, load: Callable[[str], BaseModel], load_student: Callable[[str, BaseModel], BaseModel], *, capacity: int
    ) -> None:
        self._load = load
        self._load_student = load_student
        self._capacity = capacity
        self._models: OrderedDict[tuple[str, str | None], BaseModel] = OrderedDict()

    def __contains__(self, named: tuple[str, str | None]) -> bool:
        return named in self._models

    def get(self, model: str, student: str | None = None) -> BaseModel:
        """Return the model, or that student of it, loading what is not warm."""
        named = (model, student)
        if named not in self._models:
            load = (
                partial(self._load, model) if student is None else partial(self._load_student, student, self.get(model))
            )
            while len(self._models) >= self._capacity:
                self._models.popitem(last=False)
            self._models[named] = load()
        for used in ((model, None), named):
            if used in self._models:
                self._models.move_to_end(used)
        return self._models[named]
