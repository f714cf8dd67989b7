"""What goes on at endpoints without a request: held deliveries are released, order is kept, old secrets forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.webhooks import statements

_BATCH = 1_000  # deliveries of one endpoint in one pass


@dataclass(frozen=True)
class ReleaseCounts:
    """What one pass did."""

    released: int = 0
    put_off: int = 0
    forgotten: int = 0


def release(session: Session) -> ReleaseCounts:
    """Do what is to be done, a batch of each."""
    batch = {"limit": _BATCH}
    return ReleaseCounts(
        released=len(session.execute(statements.RELEASE, batch).all()),
        put_off=len(session.execute(statements.PUT_OFF, batch).all()),
        forgotten=len(session.execute(statements.FORGET_SECRETS).all())
        + len(session.execute(statements.FORGET_TENANT_SECRETS).all()),
    )
