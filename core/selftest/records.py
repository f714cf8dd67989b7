"""Self tests as they are written down: asked for by an operator, carried out by the maintainer.

Each function runs in the caller's transaction. One that nobody carries out, or that is cut off with its maintainer,
ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.operations.audit import Actor, note
from core.selftest import statements
from core.selftest.models import SelfTest

LIMIT = timedelta(minutes=4)  # of the whole, its wait for a maintainer included
_KEPT = timedelta(days=30)
_NOT_TAKEN_UP = "No maintainer took it up: is `lockstepd maintain` running?"
_CUT_OFF = "It was cut off: the maintainer that carried it out is gone."

StageState = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Stage:
    """One stage: how it went, how long it took, and what an operator may do about its failure."""

    name: str
    state: StageState
    seconds: float
    error: str | None = None


def request(session: Session, actor: Actor) -> SelfTest:
    """Ask for a self test; raises Conflict while another is under way."""
    _give_up(session)
    session.execute(statements.FORGET, {"age": _KEPT})
    made = session.execute(
        statements.REQUEST, {"id": new_id("tst"), "actor": actor.id, "within": LIMIT}
    ).scalar_one_or_none()
    if made is None:
        live = session.execute(statements.LIVE).scalar_one_or_none()
        raise Conflict(f"The self test {live} is under way; there is one at a time.")
    note(session, actor, "selftest.requested", made)
    return get(session, made)


def get(session: Session, test_id: str) -> SelfTest:
    """A self test as it stands; raises NotFound."""
    _give_up(session)
    found = session.scalar(statements.self_test_by_id(test_id))
    if found is None:
        raise NotFound(f"No self test {test_id}.", param="self_test")
    return found


def _give_up(session: Session) -> None:
    session.execute(statements.GIVE_UP, {"not_taken_up": _NOT_TAKEN_UP, "cut_off": _CUT_OFF})


def take_up(session: Session) -> str | None:
    """The id of one that waits, now under way, or None."""
    _give_up(session)
    taken: str | None = session.execute(statements.TAKE_UP).scalar_one_or_none()
    return taken


def keep_subject(session: Session, test_id: str, tenant_id: str) -> None:
    """Remember whom it is carried out with, so that nothing of it is left behind, whatever happens."""
    session.execute(statements.KEEP_SUBJECT, {"id": test_id, "subject_id": tenant_id})


def keep_stages(session: Session, test_id: str, stages: Sequence[Stage]) -> None:
    """Say how far it is."""
    session.execute(statements.KEEP_STAGES, {"id": test_id, "stages": [asdict(stage) for stage in stages]})


def finish(session: Session, test_id: str, stages: Sequence[Stage]) -> None:
    """End it."""
    state = "succeeded" if all(stage.state == "ok" for stage in stages) else "failed"
    session.execute(statements.FINISH, {"id": test_id, "state": state, "stages": [asdict(stage) for stage in stages]})


def left_behind(session: Session) -> dict[str, str]:
    """Tenants of self tests that are over, by the test."""
    return {row.id: row.subject_id for row in session.execute(statements.LEFT_BEHIND)}


def forget_subject(session: Session, test_id: str) -> None:
    """Its tenant is gone."""
    session.execute(statements.FORGET_SUBJECT, {"id": test_id})


def how_delivered(session: Session, tenant_id: str) -> str:
    """What came of the deliveries to a tenant, for people."""
    row = session.execute(statements.DELIVERIES, {"tenant_id": tenant_id}).one_or_none()
    if row is None:
        return "no delivery was written"
    return f"the delivery of {row.type} is {row.state}" + (f" ({row.answer})" if row.answer else ", and was not tried")
