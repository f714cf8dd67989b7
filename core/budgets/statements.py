"""SQL of budgets and the ledger. Amounts are GPU-milliseconds.

Rules kept here: whoever reserves or sets a limit holds the payer's lock until commit, so what is left is never given
away twice; whoever ends jobs writes the ledger and leaves a note, and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, Select, SQLColumnExpression, Text, bindparam, func, select, text

from core.budgets.models import LedgerEntry

_KEY = bindparam("api_key_id", type_=Text())

# --- the end of a job -------------------------------------------------------------------------------------------

# Belongs to every statement that ends jobs: `closing` holds them as they now stand, with `token` and `model_id`.
CLOSE = """
    booked AS (
        INSERT INTO ledger_entries
            (tenant_id, job_id, api_key_id, kind, job_kind, model_id, token, reserved_ms, charged_ms)
        SELECT tenant_id, id, api_key_id, CASE WHEN charged_ms > 0 THEN 'settle' ELSE 'release' END, kind, model_id,
            token, -reserved_ms, charged_ms
        FROM closing RETURNING tenant_id, api_key_id, reserved_ms, charged_ms),
    told AS (
        INSERT INTO budget_notes (tenant_id, api_key_id, reserved_ms, charged_ms, jobs)
        SELECT tenant_id, api_key_id, sum(reserved_ms), sum(charged_ms), -count(*) FROM booked
        GROUP BY tenant_id, api_key_id)
"""

# --- admission --------------------------------------------------------------------------------------------------

LOCK_PAYER = text("SELECT pg_advisory_xact_lock(hashtextextended('lockstep.payer ' || :tenant_id, 0))")

_MONTH = "date_trunc('month', lockstep_now(), 'UTC')"

# What a budget of a month has to leave out: all that was charged before the month.
_BASE = """
    {charged} - (
        SELECT coalesce(sum(l.charged_ms), 0) FROM ledger_entries l
        WHERE l.tenant_id = b.tenant_id AND (b.api_key_id IS NULL OR l.api_key_id = b.api_key_id)
          AND l.created_at >= {month})
"""
_NEXT_BASE = _BASE.format(charged="b.charged_ms + excluded.charged_ms", month=_MONTH)

_STANDING = """
    api_key_id, limit_ms, period, hard, window_start, charged_ms - base_ms AS spent_ms, reserved_ms, jobs, stored_bytes
"""

# Folds in the notes and adds what is asked for, to the tenant's budget and to those of its keys, in one go. Under the
# payer's lock, taken by an earlier statement: this one's snapshot then holds all that others have reserved.
RESERVE = text(f"""
    WITH note AS (
        DELETE FROM budget_notes WHERE tenant_id = :tenant_id
        RETURNING api_key_id, reserved_ms, charged_ms, jobs, stored_bytes),
    change AS (
        SELECT api_key_id, reserved_ms, charged_ms, jobs, 0 AS stored_bytes FROM note WHERE api_key_id IS NOT NULL
        UNION ALL
        SELECT NULL, reserved_ms, charged_ms, jobs, stored_bytes FROM note
        UNION ALL
        SELECT NULL, :reserved_ms, 0, :jobs, 0
        UNION ALL  -- nothing, so that they too begin the new month
        SELECT api_key_id, 0, 0, 0, 0 FROM budgets WHERE tenant_id = :tenant_id AND window_start < {_MONTH}
        UNION ALL
        SELECT :api_key_id, :reserved_ms, 0, :jobs, 0 WHERE :api_key_id IS NOT NULL)
    INSERT INTO budgets AS b (tenant_id, api_key_id, reserved_ms, charged_ms, jobs, stored_bytes)
    SELECT :tenant_id, api_key_id, sum(reserved_ms), sum(charged_ms), sum(jobs), sum(stored_bytes)
    FROM change GROUP BY api_key_id ORDER BY api_key_id
    ON CONFLICT (tenant_id, api_key_id) DO UPDATE SET
        reserved_ms = b.reserved_ms + excluded.reserved_ms,
        charged_ms = b.charged_ms + excluded.charged_ms,
        jobs = b.jobs + excluded.jobs,
        stored_bytes = b.stored_bytes + excluded.stored_bytes,
        base_ms = CASE WHEN b.window_start < {_MONTH} THEN {_NEXT_BASE} ELSE b.base_ms END,
        window_start = CASE WHEN b.period = 'month' THEN {_MONTH} END
    RETURNING {_STANDING}
""").bindparams(_KEY, bindparam("reserved_ms", type_=BigInteger()), bindparam("jobs", type_=BigInteger()))

OPEN = text("""
    INSERT INTO ledger_entries (tenant_id, job_id, api_key_id, kind, job_kind, model_id, reserved_ms)
    SELECT tenant_id, id, api_key_id, 'reserve', kind, model_id, reserved_ms FROM jobs WHERE id = :job_id
""")

# --- setting and reading ----------------------------------------------------------------------------------------

KEY_EXISTS = text("SELECT 1 FROM api_keys WHERE id = :api_key_id")

SET_LIMIT = text(f"""
    UPDATE budgets b SET limit_ms = :limit_ms, period = :period, hard = :hard,
        window_start = CASE WHEN :period = 'month' THEN {_MONTH} END,
        base_ms = CASE WHEN :period = 'month' THEN {_BASE.format(charged="b.charged_ms", month=_MONTH)} ELSE 0 END
    WHERE tenant_id = :tenant_id AND api_key_id IS NOT DISTINCT FROM :api_key_id
    RETURNING {_STANDING}
""").bindparams(
    _KEY,
    bindparam("limit_ms", type_=BigInteger()),
    bindparam("period", type_=Text()),
    bindparam("hard", type_=Boolean()),
)

# The tenant's own budget first, then those of its keys that have a limit.
STANDINGS = text(f"""
    SELECT {_STANDING} FROM budgets
    WHERE tenant_id = :tenant_id AND (api_key_id IS NULL OR limit_ms IS NOT NULL OR api_key_id = :api_key_id)
    ORDER BY api_key_id NULLS FIRST LIMIT :limit
""").bindparams(_KEY)

# --- usage ------------------------------------------------------------------------------------------------------

TODAY = text("SELECT (lockstep_now() AT TIME ZONE 'UTC')::date")

_GROUPS: Mapping[str, SQLColumnExpression[Any]] = {
    "day": func.to_char(func.timezone("UTC", LedgerEntry.created_at), "YYYY-MM-DD"),
    "kind": LedgerEntry.job_kind,
    "model": LedgerEntry.model_id,
    "api_key": LedgerEntry.api_key_id,
}


def usage(*, since: datetime, until: datetime, by: Sequence[str], limit: int) -> Select[Any]:
    """Jobs that ended between two moments and what was charged for them, in groups."""
    groups: list[Any] = [_GROUPS[name].label(name) for name in by]
    query = (
        select(*groups, func.count().label("jobs"), func.coalesce(func.sum(LedgerEntry.charged_ms), 0).label("ms"))
        .where(LedgerEntry.kind != "reserve", LedgerEntry.created_at >= since, LedgerEntry.created_at < until)
        .limit(limit)
    )
    return query.group_by(*groups).order_by(*groups) if groups else query


# --- quotes -----------------------------------------------------------------------------------------------------

AMOUNTS = text("""
    SELECT reserved_ms FROM jobs WHERE id = :job_id OR parent_id = :job_id
    ORDER BY parent_id NULLS FIRST, (params ->> 'shard')::int
""")

QUOTE = text("""
    INSERT INTO quotes (id, tenant_id, request_sha256, amounts_ms, expires_at)
    VALUES (:id, :tenant_id, :request_sha256, :amounts_ms, lockstep_now() + :lifetime)
    RETURNING expires_at, created_at
""").bindparams(bindparam("amounts_ms", type_=ARRAY(BigInteger())))

# Held until commit: two requests cannot use one quote.
HOLD_QUOTE = text("""
    SELECT request_sha256, amounts_ms, used_at IS NOT NULL AS used, expires_at <= lockstep_now() AS expired
    FROM quotes WHERE id = :id FOR UPDATE
""").columns(request_sha256=Text(), amounts_ms=ARRAY(BigInteger()), used=Boolean(), expired=Boolean())

USE_QUOTE = text("UPDATE quotes SET used_at = lockstep_now() WHERE id = :id")

# --- what must hold ---------------------------------------------------------------------------------------------

MISMATCHES = text("SELECT tenant_id, subject, problem FROM ledger_mismatches()")
