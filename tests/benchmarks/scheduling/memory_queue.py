"""A pool's queue in memory, for the selection that claims run: what `core.scheduling.queue` does in Postgres.

Times are seconds on the caller's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice

from sortedcontainers import SortedList

from core.scheduling.fairshare import Batch, Share, Waiting, charge


@dataclass
class _Tenant:
    """A tenant's standing, and its jobs in their order, all of them and by lane."""

    weight: int
    cap: int
    vtime: int = 0
    running: int = 0
    jobs: SortedList = field(default_factory=SortedList)
    lanes: dict[str, SortedList] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        """Whether it can lead."""
        return bool(self.jobs) and self.running < self.cap


class MemoryQueue:
    """The queue of one pool; the caller is its only user, as a claim is under the pool's lock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.vtime = 0
        self._jobs: dict[str, tuple[Waiting, float]] = {}  # by id, with the time of their coming
        self._tenants: dict[str, _Tenant] = {}
        self._line: SortedList = SortedList()  # (virtual time, tenant) of those that can lead

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def join(self, tenant_id: str, *, weight: int = 100, cap: int = 1000) -> None:
        """Let a tenant use the pool."""
        self._tenants[tenant_id] = _Tenant(weight, cap)

    def put(self, job: Waiting) -> None:
        """Queue a job; a tenant that had none begins at the pool's own time."""
        tenant = self._tenants[job.tenant_id]
        was_served = tenant.is_served
        if not tenant.jobs:
            tenant.vtime = max(tenant.vtime, self.vtime)
        place = (job.sort_key, job.job_id)
        tenant.jobs.add(place)
        tenant.lanes.setdefault(job.lane, SortedList()).add(place)
        self._jobs[job.job_id] = job, self.now
        if not was_served and tenant.is_served:
            self._line.add((tenant.vtime, job.tenant_id))

    def take(self, batch: Batch) -> None:
        """Charge a batch that was selected and take it out of the queue."""
        self.vtime = max(self.vtime, batch.vtime)
        for job in batch.jobs:
            tenant = self._tenants[job.tenant_id]
            self._line.discard((tenant.vtime, job.tenant_id))
            place = (job.sort_key, job.job_id)
            del self._jobs[job.job_id]
            tenant.jobs.remove(place)
            lane = tenant.lanes[job.lane]
            lane.remove(place)
            if not lane:
                del tenant.lanes[job.lane]
            tenant.vtime += charge(job.cost_ms, tenant.weight)
            tenant.running += 1
            if tenant.is_served:
                self._line.add((tenant.vtime, job.tenant_id))

    def settle(self, job: Waiting, true_ms: float) -> None:
        """End a job: its place is free, and its tenant gets back what it was charged too much, or pays the rest."""
        tenant = self._tenants[job.tenant_id]
        self._line.discard((tenant.vtime, job.tenant_id))
        tenant.running -= 1
        refund = int((job.cost_ms - true_ms) * 100 / tenant.weight)
        tenant.vtime = max(self.vtime, tenant.vtime - refund)
        if tenant.is_served:
            self._line.add((tenant.vtime, job.tenant_id))

    def leaders(self, passed_over: Collection[str], limit: int) -> list[Share]:
        """As `Queue` has it."""
        return list(islice(self._shares(passed_over), limit))

    def heads(self, share: Share, limit: int) -> list[Waiting]:
        """As `Queue` has it."""
        found = (self._jobs[job_id] for _, job_id in self._tenants[share.tenant_id].jobs[:limit])
        return [replace(job, waited=timedelta(seconds=self.now - came_at)) for job, came_at in found]

    def lane_heads(self, lane: str, shares: Sequence[Share], limit: int) -> list[Waiting]:
        """As `Queue` has it."""
        queues = (self._tenants[share.tenant_id].lanes.get(lane, ()) for share in shares)
        return [self._jobs[job_id][0] for queue in queues for _, job_id in queue[:limit]]

    def let_sleep(self, share: Share) -> bool:
        """As `Queue` has it; nobody without work is in the line."""
        raise AssertionError(f"{share.tenant_id} leads without work")

    def _shares(self, passed_over: Collection[str]) -> Iterator[Share]:
        for vtime, tenant_id in self._line:
            tenant = self._tenants[tenant_id]
            if tenant_id not in passed_over:
                yield Share(tenant_id, vtime, tenant.weight, tenant.cap - tenant.running)
