"""What a lease keeper hears of the jobs in hand."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from workers.leases import LeaseKeeper


@pytest.fixture
async def held(deployment):
    """The id of a claimed training, and its keeper, which asks only when it is told to."""
    job_id = await deployment.train()
    jobs = deployment.supervisor()._claim(frozenset())
    minute = timedelta(minutes=1)
    return job_id, LeaseKeeper(deployment.sessions, jobs, lease=minute, every=minute)


def note(deployment, job_id: str, what: str) -> None:
    with deployment.sessions.begin() as session:
        session.execute(text(f"UPDATE jobs SET {what} WHERE id = :id"), {"id": job_id})


@pytest.mark.parametrize("ask", [LeaseKeeper.look_once, LeaseKeeper.renew_once])
async def test_a_pause_is_heard_and_forgotten_when_the_job_is_resumed(deployment, held, ask):
    job_id, keeper = held
    ask(keeper)
    assert not keeper.pause_requested(job_id)
    note(deployment, job_id, "pause_requested_at = lockstep_now()")
    ask(keeper)
    assert keeper.pause_requested(job_id)
    assert keeper.is_held(job_id)
    note(deployment, job_id, "pause_requested_at = NULL")
    ask(keeper)
    assert not keeper.pause_requested(job_id)


@pytest.mark.parametrize("ask", [LeaseKeeper.look_once, LeaseKeeper.renew_once])
async def test_a_cancel_and_a_lost_lease_are_heard(deployment, held, ask):
    job_id, keeper = held
    note(deployment, job_id, "cancel_requested_at = lockstep_now()")
    ask(keeper)
    assert keeper.cancel_requested(job_id)
    assert not keeper.pause_requested(job_id)
    note(deployment, job_id, "lease_token = nextval('fence')")
    ask(keeper)
    assert not keeper.is_held(job_id)
