"""Several statements in one exchange with Postgres, where the way there and back costs more than what is asked for.

SQLAlchemy sends one statement at a time; this is libpq's pipeline mode. Within a transaction every statement still sees
what those before it wrote, and what others committed by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import CursorResult, TextClause
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core.db import statements

Call = tuple[TextClause, Mapping[str, Any]]
"""A statement and its values, which go to the driver as they are: JSON as ``psycopg.types.json.Jsonb``."""
Rows = list[dict[str, Any]]

BY_INDEX: Call = (statements.LOOK_UP, {})
"""Whatever is asked for from here on until commit is looked up."""

_DIALECT = dialect()  # type: ignore[no-untyped-call]


def exchange(session: Session, *calls: Call) -> list[Rows]:
    """Run the calls in this order in the session's transaction; return the rows of each, none of one that has none.

    The first one that fails ends it, and raises what ``session.execute`` would, a DBAPIError. In an asynchronous
    session's ``run_sync``, which has no pipeline, they are sent one by one.
    """
    connection = session.connection()
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        return [_rows(connection.exec_driver_sql(_sql(statement), values)) for statement, values in calls]
    try:
        with driver.pipeline():
            cursors = [
                driver.cursor(row_factory=dict_row).execute(_sql(statement), values) for statement, values in calls
            ]
        return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
    except psycopg.Error as error:
        if driver.broken:
            connection.invalidate(error)
        asked = "; ".join(statement.text for statement, _ in calls)
        raise DBAPIError.instance(
            asked, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.broken
        ) from error


def _rows(result: CursorResult[Any]) -> Rows:
    return [dict(row) for row in result.mappings()] if result.returns_rows else []


@cache
def _sql(statement: TextClause) -> str:
    """The statement with the driver's placeholders."""
    return str(statement.compile(dialect=_DIALECT))
