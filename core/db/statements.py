"""SQL that is about no table."""

from __future__ import annotations

from sqlalchemy import text

NOW = text("SELECT lockstep_now()")
