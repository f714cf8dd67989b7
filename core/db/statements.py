"""SQL that is about no table."""

from __future__ import annotations

from sqlalchemy import text

NOW = text("SELECT lockstep_now()")

# For a few rows of tables whose statistics are always old: a plan that reads one of them whole would be chosen for what
# it held hours ago.
LOOK_UP = text("""
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
        set_config('enable_mergejoin', 'off', true), set_config('enable_bitmapscan', 'off', true)
""")
