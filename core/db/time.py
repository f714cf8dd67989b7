"""The one clock that decides: the database's.

``lockstep_now()`` is the statement's time plus an offset that only tests and the simulator set, so that a
lease can expire without anybody waiting for it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import DateTime


class lockstep_now(GenericFunction[datetime]):  # noqa: N801 - it is written as the SQL function it calls
    """``lockstep_now()`` in SQL."""

    type = DateTime(timezone=True)
    inherit_cache = True
