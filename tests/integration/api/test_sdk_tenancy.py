"""The SDK's side of keys and grants, on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lockstep import Lockstep, NotFound, Unauthenticated
from tests.serving import SCOPES, Tenant


def client(tenant: Tenant, key: str | None = None) -> Lockstep:
    return Lockstep(base_url=tenant.base_url, api_key=key or tenant.deployment.new_key(tenant.id, SCOPES))


@pytest.fixture
def lockstep(acme: Tenant) -> Iterator[Lockstep]:
    with client(acme) as made:
        yield made


def test_a_key_is_made_rotated_and_revoked(acme: Tenant, lockstep: Lockstep):
    expires_at = datetime.now(UTC) + timedelta(days=1)
    made = lockstep.api_keys.create(name="shop", scopes=["read"], expires_at=expires_at, max_running=2)
    assert (made.scopes, made.max_running, made.expires_at) == (["read"], 2, expires_at)
    assert made.key not in repr(made)
    rotated = lockstep.api_keys.rotate(made.id, overlap_seconds=0)
    with client(acme, rotated.key) as new, client(acme, made.key) as old:
        assert list(new.concepts.list()) == []
        with pytest.raises(Unauthenticated):
            old.concepts.list()
        assert [key.last_used_at is None for key in lockstep.api_keys.list() if key.id == made.id] == [False]
        lockstep.api_keys.revoke(made.id)
        with pytest.raises(Unauthenticated):
            new.concepts.list()


def test_a_concept_is_granted_drawn_with_and_taken_back(acme: Tenant, rival: Tenant, lockstep: Lockstep):
    concept_id = acme.trained("tom")
    with client(rival) as other:
        assert lockstep.concepts.grant("tom", tenant=rival.id).concept_id == concept_id
        assert [grant.id for grant in lockstep.concepts.grants("tom")] == [rival.id]
        (granted,) = other.concepts.granted()
        job = other.generations.create(prompt="<tom>", concepts=[{"name": granted.reference}])
        lockstep.concepts.revoke_grant("tom", tenant=rival.id)
        assert other.jobs.get(job.id).state == "canceled"
        assert list(other.concepts.granted()) == []
        with pytest.raises(NotFound):
            lockstep.concepts.revoke_grant("tom", tenant=rival.id)
