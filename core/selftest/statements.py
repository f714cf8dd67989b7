"""SQL of self tests."""

from __future__ import annotations

from sqlalchemy import Interval, Select, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from core.selftest.models import SelfTest

# One that nobody took up, or that was cut off with its maintainer, is over.
GIVE_UP = text("""
    UPDATE self_tests SET state = 'failed', live = NULL, finished_at = lockstep_now(),
        error = CASE WHEN state = 'queued' THEN CAST(:not_taken_up AS text) ELSE CAST(:cut_off AS text) END
    WHERE live AND until < lockstep_now()
""")

FORGET = text("DELETE FROM self_tests WHERE live IS NULL AND subject_id IS NULL AND created_at < lockstep_now() - :age")

REQUEST = text("""
    INSERT INTO self_tests (id, actor, until) VALUES (:id, :actor, lockstep_now() + :within)
    ON CONFLICT (live) DO NOTHING RETURNING id
""").bindparams(bindparam("within", type_=Interval()))

LIVE = text("SELECT id FROM self_tests WHERE live")

TAKE_UP = text("""
    UPDATE self_tests SET state = 'running', started_at = lockstep_now() WHERE live AND state = 'queued'
    RETURNING id
""")

KEEP_SUBJECT = text("UPDATE self_tests SET subject_id = :subject_id WHERE id = :id AND live")

KEEP_STAGES = text("UPDATE self_tests SET stages = :stages WHERE id = :id AND live").bindparams(
    bindparam("stages", type_=JSONB())
)

FINISH = text("""
    UPDATE self_tests SET state = :state, live = NULL, stages = :stages, finished_at = lockstep_now()
    WHERE id = :id AND live
""").bindparams(bindparam("stages", type_=JSONB()))

LEFT_BEHIND = text("SELECT id, subject_id FROM self_tests WHERE live IS NULL AND subject_id IS NOT NULL LIMIT 10")

FORGET_SUBJECT = text("UPDATE self_tests SET subject_id = NULL WHERE id = :id")

DELIVERIES = text("""
    SELECT e.type, d.state, (
        SELECT coalesce(a.error, 'answered ' || a.status) FROM webhook_attempts a
        WHERE a.delivery_id = d.id ORDER BY a.attempt DESC LIMIT 1) AS answer
    FROM webhook_deliveries d JOIN events e ON e.id = d.event_id
    WHERE d.tenant_id = :tenant_id ORDER BY d.id LIMIT 1
""").columns(type=Text(), state=Text(), answer=Text())


def self_test_by_id(test_id: str) -> Select[SelfTest]:
    """One self test."""
    return select(SelfTest).where(SelfTest.id == test_id)
