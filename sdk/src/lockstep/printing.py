"""How the command line shows things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.table import Table


@contextmanager
def printed_table(*columns: str) -> Iterator[Table]:
    """A table that is printed once it is filled; ids are never cut."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "id")
    yield table
    Console().print(table)


def local_time(moment: datetime) -> str:
    """A moment as the clock on the wall shows it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
