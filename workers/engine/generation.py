"""Requests for pictures, answered in batches that mix any prompts, concepts, seeds and guidance scales.

A batch shares the model, the size and the number of steps; everything else is per sample. A request that cannot be
rendered gets its error in its own place and costs the others nothing. How each kind of model draws is `samplers.py`'s.

A seed means the same picture whatever it is drawn beside: noise is drawn for each sample alone, and in batches of as
many samples a picture is the same to the bit; guidance takes two for a picture, in a batch where anybody wants it. With
other numbers it differs by the rounding of sums, by a grey level at most. On a GPU, and where networks are compiled,
batches are filled up to a power of two.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import EngineError, Interrupted, OutOfMemory, PermanentError, SettingsInvalid
from workers.engine.memory import is_out_of_memory, release
from workers.engine.pictures import to_pictures
from workers.engine.samplers import check_settings, draw_latents, takes_unconditional
from workers.engine.stopwatch import Stopwatch
from workers.engine.warm import WarmModel

_log = logging.getLogger(__name__)
_MAX_GUIDANCE = 50.0
_SEEDS = range(2**63)

Answer = Image.Image | EngineError


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


class _Steps:
    """The sampling steps done and those due over all batches."""

    def __init__(self, due: int, tell: Callable[[int, int], None]) -> None:
        self.due, self.done = due, 0
        self._tell = tell

    def advance(self) -> None:
        self.done += 1
        self._tell(self.done, self.due)


def generate(
    base: BaseModel,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> list[Answer]:
    """Draw every request; the answer at each place is its picture, or why there is none. See `draw_in_batches`."""
    answers: dict[int, Answer] = {}
    for drawn in draw_in_batches(
        WarmModel(base), requests, batch_size=batch_size, on_progress=on_progress, should_stop=should_stop
    ):
        answers |= drawn
    return [answers[index] for index in range(len(requests))]


def draw_in_batches(
    model: WarmModel,
    requests: Sequence[GenerationRequest],
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    watch: Stopwatch | None = None,
) -> Iterator[dict[int, Answer]]:
    """Draw every request; yield the answers of each batch by the places of its requests, refusals first.

    ``on_progress`` gets the sampling steps done and those due over all batches. ``should_stop`` is asked before every
    step and raises Interrupted. ``watch`` times "condition", "sample" and "decode". A batch that memory does not hold
    is halved; OutOfMemory is the answer where one picture is too much.
    """
    accepted, refused = _checked(model.base, requests)
    if refused:
        yield dict(refused)
    batches, watch = list(_batches(accepted, batch_size)), watch or Stopwatch()
    steps = _Steps(sum(batch[0][1].steps for batch in batches), on_progress)
    while batches:
        batch = batches.pop(0)
        size, done = (batch[0][1].width, batch[0][1].height), steps.done
        room = min(batch_size, model.fits.get(size, batch_size))
        if len(batch) > room:
            batches[:0] = [batch[:room], batch[room:]]
            steps.due += batch[0][1].steps
            continue
        try:
            drawn = _draw_batch(model, batch, room=room, steps=steps, should_stop=should_stop, watch=watch)
        except Interrupted as interrupted:
            raise Interrupted(steps.done) from interrupted
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("out of memory with %d pictures at once", len(batch))
        else:
            yield drawn
            continue
        release(model.base.device)  # out here, where the error no longer holds on to what was allocated
        if len(batch) == 1:
            yield {batch[0][0]: OutOfMemory("the device has too little memory for one picture of this size")}
            continue
        model.fits[size] = (len(batch) + 1) // 2
        steps.done = done
        batches.insert(0, batch)


_Numbered = tuple[int, GenerationRequest]


def _checked(
    base: BaseModel, requests: Sequence[GenerationRequest]
) -> tuple[list[_Numbered], list[tuple[int, Answer]]]:
    """Tell requests that can be drawn, as far as their numbers say, from those that cannot, with the reason."""
    accepted: list[_Numbered] = []
    refused: list[tuple[int, Answer]] = []
    for index, request in enumerate(requests):
        try:
            _check(base, request)
        except PermanentError as error:
            refused.append((index, error))
        else:
            accepted.append((index, request))
    return accepted, refused


def _check(base: BaseModel, request: GenerationRequest) -> None:
    """Raise the PermanentError that is the answer to a request that cannot be drawn."""
    base.latent_shape(request.width, request.height)
    if not (math.isfinite(request.guidance) and 0 <= request.guidance <= _MAX_GUIDANCE):
        raise SettingsInvalid(f"guidance must be from 0 to {_MAX_GUIDANCE:g}, not {request.guidance}")
    check_settings(base, steps=request.steps, guidance=request.guidance, negative_prompt=request.negative_prompt)
    if request.seed not in _SEEDS:
        raise SettingsInvalid(f"the seed must be from 0 to 2**63 - 1, not {request.seed}")


def _batches(accepted: Sequence[_Numbered], batch_size: int) -> Iterator[list[_Numbered]]:
    """Group by what a batch must share, in order of first appearance."""
    groups: OrderedDict[tuple[int, int, int], list[_Numbered]] = OrderedDict()
    for index, request in accepted:
        groups.setdefault((request.width, request.height, request.steps), []).append((index, request))
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _draw_batch(
    model: WarmModel,
    batch: Sequence[_Numbered],
    *,
    room: int,
    steps: _Steps,
    should_stop: Callable[[], bool],
    watch: Stopwatch,
) -> dict[int, Answer]:
    """Condition and draw what can be conditioned, and answer the rest with the reason; memory holds ``room``."""
    device = model.base.device
    with watch.time("condition", device):
        planned, answers = _plan(model, batch)
    if planned:
        with watch.time("sample", device):
            filled_up = planned + [planned[-1]] * (_places(model, len(planned), room) - len(planned))
            latents = _sample(model, filled_up, steps.advance, should_stop)
        with watch.time("decode", device):
            pictures = _decode(model, latents)
        answers |= {plan.index: picture for plan, picture in zip(planned, pictures, strict=False)}
    return answers


def _plan(model: WarmModel, batch: Sequence[_Numbered]) -> tuple[list[_Planned], dict[int, Answer]]:
    """Condition a batch, all of it at once unless one of its prompts cannot be."""
    requests = [request for _, request in batch]
    try:
        conditioned = _condition(model, requests)
    except PermanentError as error:
        if len(batch) == 1:
            return [], {batch[0][0]: error}
        halves = [_plan(model, half) for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :])]
        return [plan for planned, _ in halves for plan in planned], halves[0][1] | halves[1][1]
    plans = zip(batch, conditioned, strict=True)
    return [_Planned(index, request, *told) for (index, request), told in plans], {}


def _condition(
    model: WarmModel, requests: Sequence[GenerationRequest]
) -> list[tuple[Conditioning, Conditioning | None]]:
    size = (requests[0].width, requests[0].height)
    prompts = [Prompt(request.prompt, request.concepts) for request in requests]
    if not takes_unconditional(model.base):
        return [(told, None) for told in model.condition(prompts, size)]
    told = model.condition([*prompts, *(Prompt(request.negative_prompt) for request in requests)], size)
    return list(zip(told[: len(requests)], told[len(requests) :], strict=True))


@torch.inference_mode()  # no_grad's bookkeeping is a twentieth of a small network's time
def _sample(
    model: WarmModel, batch: Sequence[_Planned], on_step: Callable[[], None], should_stop: Callable[[], bool]
) -> Tensor:
    """Return the latents (B, C, H, W) of a batch."""
    base = model.drawing
    first = batch[0].request
    unconditional = [plan.unconditional for plan in batch if plan.unconditional is not None]
    return draw_latents(
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


@torch.inference_mode()
def _decode(model: WarmModel, latents: Tensor) -> list[Image.Image]:
    return to_pictures(model.drawing.autoencoder.decode(latents))


def _places(model: WarmModel, count: int, room: int) -> int:
    """Return how many places a batch of ``count`` pictures has where there is room for ``room``."""
    return min(room, 1 << (count - 1).bit_length()) if model.fills_up else count
