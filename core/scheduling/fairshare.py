"""Who is next: start-time fair queueing over GPU-time, per pool.

Each tenant of a pool has a virtual time; the tenant with the least is served and pays ``cost / weight``. A tenant
that was idle starts at the pool's own virtual time, so idling earns no credit. Companions of the leader (jobs of
its lane that can share its batch) are taken in the same order, each charged to its own tenant, so a flood cannot
fill the seats beside a quiet tenant's job.

Source: Goyal, Vin, Cheng 1996, "Start-time Fair Queuing". This module decides; a `Queue` reads and writes: that of
Postgres (``queue.py``), or one in memory that the simulator runs.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

_WEIGHT_UNIT = 100  # a tenant of this weight pays its cost as it is
PRIORITY_BOOST_MS = 60_000  # one priority class is worth a minute of waiting: age always wins in the end
WARM_LOOK_AHEAD = 8  # how far down a tenant's own queue a warm model is looked for
WARM_PATIENCE = timedelta(seconds=10)  # nobody waits longer than this for another's warm model
NEAR_TENANTS = 16  # how many tenants, in virtual-time order, are looked at first
COMPANION_TENANTS = 64  # and how many where those do not fill a batch


class Priority(IntEnum):
    """A class of jobs within a tenant; one above another is a head start, not a right of way."""

    LOW = -1
    NORMAL = 0
    HIGH = 1


@dataclass(frozen=True)
class Waiting:
    """A job that may be claimed, as the queue knows it."""

    job_id: str
    tenant_id: str
    lane: str
    model_id: str
    cost_ms: int
    sort_key: int
    waited: timedelta


@dataclass(frozen=True)
class Share:
    """A tenant's standing: ``free`` is how many more of its jobs may run, no job of it sorts before ``head_key``."""

    tenant_id: str
    vtime: int
    weight: int
    free: int
    head_key: int = 0


@dataclass(frozen=True)
class Batch:
    """What to run next: the leader first, then its companions. ``passed_over`` were looked at and had nothing yet."""

    vtime: int
    jobs: Sequence[Waiting]
    passed_over: Sequence[str] = ()


class Queue(Protocol):
    """What the selection asks of a pool's queue."""

    def leaders(self, passed_over: Collection[str], limit: int) -> Sequence[Share]:
        """Tenants that are awake, under their cap and not paused, least virtual time first."""

    def heads(self, share: Share, limit: int) -> Sequence[Waiting]:
        """A tenant's first jobs that may run."""

    def lane_heads(self, lane: str, shares: Sequence[Share], limit: int) -> Sequence[Waiting]:
        """The first jobs of a lane of each of these tenants, a tenant's in order."""

    def let_sleep(self, share: Share) -> bool:
        """Look past a tenant without work until it is woken; False for one whose next job is just being written, or has
        been since its queue was looked at."""


def select_batch(queue: Queue, *, warm: frozenset[str], most: Callable[[str], int]) -> Batch | None:
    """The next fair batch, None when nothing is runnable; ``most`` says how many jobs of a lane a worker takes."""
    passed_over: list[str] = []
    while shares := queue.leaders(passed_over, NEAR_TENANTS):
        for place, leading in enumerate(shares):
            heads = queue.heads(leading, WARM_LOOK_AHEAD)
            if heads:
                leader = choose_leader(heads, warm)
                companions = _companions(queue, leader, shares[place:], most(leader.lane) - 1, passed_over)
                return Batch(leading.vtime, [leader, *companions], passed_over)
            if not queue.let_sleep(leading):
                passed_over.append(leading.tenant_id)
    return None


def _companions(
    queue: Queue, leader: Waiting, near: Sequence[Share], room: int, passed_over: Collection[str]
) -> list[Waiting]:
    """The leader's companions: from the tenants next to it if they fill the batch, else from more of them."""
    if room <= 0:
        return []
    depth = max(2, 2 * (room + 1) // len(near))
    queues = _by_tenant(queue.lane_heads(leader.lane, near, depth))
    chosen = choose_companions(leader, near, queues, room)
    taken = Counter(job.tenant_id for job in (leader, *chosen))
    is_cut = any(len(jobs) == depth <= taken[tenant_id] for tenant_id, jobs in queues.items())
    if (len(chosen) == room and not is_cut) or (len(near) < NEAR_TENANTS and not is_cut):
        return chosen
    shares = near if len(near) < NEAR_TENANTS else queue.leaders(passed_over, COMPANION_TENANTS)
    return choose_companions(leader, shares, _by_tenant(queue.lane_heads(leader.lane, shares, room + 1)), room)


def _by_tenant(jobs: Sequence[Waiting]) -> dict[str, list[Waiting]]:
    queues: dict[str, list[Waiting]] = {}
    for job in jobs:
        queues.setdefault(job.tenant_id, []).append(job)
    return queues


def charge(cost_ms: int, weight: int) -> int:
    """The virtual time that ``cost_ms`` takes from a tenant of ``weight``; at least 1, so that time moves on."""
    return max(1, cost_ms * _WEIGHT_UNIT // weight)


def sort_key(created_at: datetime, priority: int) -> int:
    """The order within a tenant: age, with a head start per priority class; smaller is earlier."""
    return int(created_at.timestamp() * 1000) - priority * PRIORITY_BOOST_MS


def choose_leader(heads: Sequence[Waiting], warm: frozenset[str]) -> Waiting:
    """The job of the leading tenant to run: its first, or an early one whose model is warm.

    ``heads`` are the tenant's first jobs in order, at most ``WARM_LOOK_AHEAD``; never empty.
    """
    first = heads[0]
    if first.model_id in warm or first.waited > WARM_PATIENCE:
        return first
    return next((job for job in heads if job.model_id in warm), first)


def choose_companions(
    leader: Waiting, shares: Sequence[Share], queues: Mapping[str, Sequence[Waiting]], room: int
) -> list[Waiting]:
    """At most ``room`` further jobs of the leader's lane, least virtual time first, within every tenant's cap.

    ``queues`` holds each tenant's jobs of that lane in order; the leader among them is passed over.
    """
    standing = {share.tenant_id: share for share in shares}
    free = {share.tenant_id: share.free for share in shares}
    line: list[tuple[int, str, int]] = []  # (virtual time, tenant, place in its queue)
    for share in shares:
        vtime = share.vtime
        if share.tenant_id == leader.tenant_id:
            free[share.tenant_id] -= 1
            vtime += charge(leader.cost_ms, share.weight)
        heapq.heappush(line, (vtime, share.tenant_id, 0))
    chosen: list[Waiting] = []
    while line and len(chosen) < room:
        vtime, tenant_id, place = heapq.heappop(line)
        queue = queues.get(tenant_id, ())
        if place >= len(queue) or free[tenant_id] <= 0:
            continue
        job = queue[place]
        if job.job_id != leader.job_id:
            chosen.append(job)
            free[tenant_id] -= 1
            vtime += charge(job.cost_ms, standing[tenant_id].weight)
        heapq.heappush(line, (vtime, tenant_id, place + 1))
    return chosen
