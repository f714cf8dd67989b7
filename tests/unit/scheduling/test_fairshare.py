from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from core.scheduling.fairshare import (
    PRIORITY_BOOST_MS,
    WARM_PATIENCE,
    Share,
    Waiting,
    charge,
    choose_companions,
    choose_leader,
    sort_key,
)


def waiting(job_id: str, tenant_id: str = "a", *, model: str = "m", cost_ms: int = 100, waited: float = 0) -> Waiting:
    return Waiting(job_id, tenant_id, "lane", model, cost_ms, 0, timedelta(seconds=waited))


def queue(tenant_id: str, count: int, *, cost_ms: int = 100) -> list[Waiting]:
    return [waiting(f"{tenant_id}{n}", tenant_id, cost_ms=cost_ms) for n in range(count)]


def tenants(jobs: list[Waiting]) -> Counter[str]:
    return Counter(job.tenant_id for job in jobs)


def test_the_first_job_leads_when_nothing_is_warm():
    assert choose_leader([waiting("1"), waiting("2")], frozenset()).job_id == "1"


def test_an_early_job_with_a_warm_model_leads():
    heads = [waiting("1", model="cold"), waiting("2", model="warm")]
    assert choose_leader(heads, frozenset({"warm"})).job_id == "2"


def test_nobody_is_passed_over_for_warmth_beyond_the_patience():
    heads = [waiting("1", model="cold", waited=WARM_PATIENCE.total_seconds() + 1), waiting("2", model="warm")]
    assert choose_leader(heads, frozenset({"warm"})).job_id == "1"


def test_a_flood_leaves_seats_to_quiet_tenants():
    shares = [Share("flood", 0, 100, 100), *(Share(f"q{n}", 1, 100, 4) for n in range(3))]
    queues = {"flood": queue("flood", 50), **{f"q{n}": queue(f"q{n}", 1) for n in range(3)}}
    chosen = choose_companions(queues["flood"][0], shares, queues, room=7)
    assert tenants(chosen) == {"q0": 1, "q1": 1, "q2": 1, "flood": 4}


def test_seats_follow_the_weights():
    shares = [Share("heavy", 0, 300, 100), Share("light", 0, 100, 100)]
    queues = {"heavy": queue("heavy", 40), "light": queue("light", 40)}
    chosen = choose_companions(queues["heavy"][0], shares, queues, room=39)
    assert tenants(chosen)["heavy"] == pytest.approx(29, abs=1)


def test_a_tenant_with_costly_jobs_gets_fewer_seats():
    shares = [Share("cheap", 0, 100, 100), Share("dear", 0, 100, 100)]
    queues = {"cheap": queue("cheap", 40, cost_ms=100), "dear": queue("dear", 40, cost_ms=300)}
    chosen = choose_companions(queues["cheap"][0], shares, queues, room=19)
    assert tenants(chosen)["dear"] == pytest.approx(5, abs=1)


def test_a_cap_counts_the_leader():
    shares = [Share("a", 0, 100, 2)]
    assert [job.job_id for job in choose_companions(waiting("a0"), shares, {"a": queue("a", 9)}, 8)] == ["a1"]


def test_the_leader_is_not_its_own_companion_wherever_it_stands():
    jobs = queue("a", 4)
    chosen = choose_companions(jobs[2], [Share("a", 0, 100, 100)], {"a": jobs}, room=8)
    assert [job.job_id for job in chosen] == ["a0", "a1", "a3"]


def test_no_room_means_no_companions():
    assert choose_companions(waiting("a0"), [Share("a", 0, 100, 9)], {"a": queue("a", 3)}, room=0) == []


def test_time_always_moves_on():
    assert charge(0, 1_000_000) == 1


def test_age_beats_priority_in_the_end():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    late = now + timedelta(milliseconds=PRIORITY_BOOST_MS + 1)
    assert sort_key(now + timedelta(seconds=1), 1) < sort_key(now, 0) < sort_key(late, 1)
