"""Accepting a distillation: the student it is to make, the job, and the jobs that draw its pairs.

Everything runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.facts import ModelFacts
from core.catalog.selection import facts_of, reserve_student, select_base
from core.errors import Conflict, GuidanceUnsupported, Invalid, NoPrompts, UnknownPlaceholder
from core.jobs import statements
from core.jobs.models import Job
from core.jobs.params import DistillationParams, PairsWanted, TeacherPairsParams
from core.jobs.requests import placeholders
from core.jobs.submission import QueueLimits, submit

_PAIRS_OF_SHARD: Final = 64
_MOST_PAIRS_OF_SHARD: Final = 256  # minutes of a GPU: what a worker that leaves in the middle has drawn is lost
_SHARDS: Final = 64  # enough to go round, unless the shards got too large


@dataclass(frozen=True)
class DistillationRequest:
    """Distil a student called ``name``; None leaves it to the teacher or chance.

    ``settings`` are those of the engine that the request names.
    """

    name: str
    teacher: str | None = None
    prompts: Sequence[str] = ()
    pairs: int | None = None
    pair_steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


async def accept_distillation(
    session: AsyncSession,
    tenant_id: str,
    request: DistillationRequest,
    *,
    limits: QueueLimits,
    draw_seed: Callable[[], int],
) -> Job:
    """A job that makes the student, which waits for its pairs where it is to learn from any.

    Raises ModelUnknown, ModelNotBase, GuidanceUnsupported, ModelNameTaken, Conflict, NoPrompts and Invalid.
    """
    teacher = await select_base(session, request.teacher, param="teacher")
    facts = facts_of(teacher)
    if facts.guidance != "classifier_free":
        detail = f"The model {teacher.name!r} draws in few steps already: distil the one that it was made of."
        raise GuidanceUnsupported(detail, param="teacher")
    if not request.prompts and not facts.prompts:
        raise NoPrompts(f"The model {teacher.name!r} brings no prompts: give some to distil with.", param="prompts")
    for place, prompt in enumerate(request.prompts):
        if named := placeholders(prompt):
            detail = f"A student learns words, not concepts, but a prompt has <{named[0]}>."
            raise UnknownPlaceholder(detail, param=f"prompts.{place}")
    seed = request.seed if request.seed is not None else draw_seed()
    wanted = _pairs_wanted(facts, request, seed)
    settings = dict(request.settings) if wanted else {**request.settings, "regression_weight": 0.0}
    student = await reserve_student(session, tenant_id=tenant_id, name=request.name, teacher=teacher)
    params = DistillationParams(
        model_id=teacher.id,
        student_id=student.id,
        student_name=student.name,
        prompts=tuple(request.prompts),
        settings=settings,
        wanted=wanted,
        seed=seed,
    )
    return await submit_distillation(session, tenant_id, params, limits=limits)


async def submit_distillation(
    session: AsyncSession,
    tenant_id: str,
    params: DistillationParams,
    *,
    limits: QueueLimits,
    retry_of: str | None = None,
) -> Job:
    """Write the job and those that draw its pairs; raises Conflict while another one makes its student."""
    if (live := await session.scalar(statements.live_distillation(params.student_id))) is not None:
        raise Conflict(f"The job {live} is making {params.student_name!r} already.", param="name")
    wanted = params.wanted
    job = await submit(session, tenant_id, params, limits=limits, blocked=wanted is not None, retry_of=retry_of)
    for shard in range(wanted.shards if wanted else 0):
        await _submit_shard(session, job, params, shard, limits=limits)
    return job


def _pairs_wanted(facts: ModelFacts, request: DistillationRequest, seed: int) -> PairsWanted | None:
    """The pairs to draw; None where the request, or what it settles, leaves regression out."""
    settled = {**facts.distillation, **request.settings}
    several = len(settled.get("student_timesteps", (0,))) > 1  # pairs say nothing of the steps between
    if request.pairs == 0 or several or settled.get("regression_weight") == 0:
        detail = "Pairs are learned from by regression, which no pairs, several timesteps or a weight of 0 leave out."
        given = {**request.settings, "pairs": request.pairs, "pair_steps": request.pair_steps}
        for idle in ("pairs", "pair_steps", "regression_weight"):
            if given.get(idle):
                raise Invalid(detail, param=idle)
        return None
    count = request.pairs or facts.default_pairs
    shards = max(min(_SHARDS, -(-count // _PAIRS_OF_SHARD)), -(-count // _MOST_PAIRS_OF_SHARD))
    return PairsWanted(count=count, steps=request.pair_steps or facts.default_steps, shards=shards, seed=seed)


async def _submit_shard(
    session: AsyncSession, parent: Job, params: DistillationParams, shard: int, *, limits: QueueLimits
) -> None:
    assert params.wanted is not None
    shard_params = TeacherPairsParams(
        distillation_id=parent.id,
        model_id=params.model_id,
        shard=shard,
        count=params.wanted.in_shard(shard),
        steps=params.wanted.steps,
    )
    await submit(session, parent.tenant_id, shard_params, limits=limits, parent_id=parent.id)
