"""The command line's side of money: ``lockstep usage``, ``limits`` and ``budget``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lockstep.client import Lockstep
from lockstep.models import Budget

DAY = ["%Y-%m-%d"]


class Grouping(StrEnum):
    """What usage is told by."""

    DAY = "day"
    KIND = "kind"
    MODEL = "model"
    API_KEY = "api_key"


def usage(
    by: Annotated[list[Grouping] | None, typer.Option(help="May be given several times; by default day.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", help="The first day (UTC).", formats=DAY)] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="The last; by default today.", formats=DAY)] = None,
) -> None:
    """Show what was charged, in GPU-seconds."""
    names = [group.value for group in by or [Grouping.DAY]]
    with Lockstep() as lockstep:
        used = lockstep.account.usage(
            first=None if first is None else first.date(), last=None if last is None else last.date(), by=names
        )
    table = Table(*names, "jobs", "GPU-seconds", box=None, pad_edge=False)
    for row in used.data:
        table.add_row(*(str(getattr(row, name) or "-") for name in names), str(row.jobs), f"{row.gpu_seconds:.3f}")
    table.add_row("all", *[""] * (len(names) - 1), str(used.total.jobs), f"{used.total.gpu_seconds:.3f}")
    Console().print(table)


def limits() -> None:
    """Show what holds for this API key, and how much of it is used."""
    with Lockstep() as lockstep:
        told = lockstep.account.limits()
    for rate in told.rates:
        typer.echo(f"rate of {rate.name}: {rate.left} of {rate.limit} left in {rate.window_seconds} s")
    for name, cap in (("jobs", told.jobs), ("stored bytes", told.stored_bytes)):
        typer.echo(f"{name}: {cap.used} of {'any number' if cap.limit is None else cap.limit}")
    for each in told.budgets:
        typer.echo(_line(each))


def budget(
    limit: Annotated[str, typer.Argument(help="GPU-seconds, or `none`.")],
    key: Annotated[str | None, typer.Option(help="Of this API key; by default of the whole tenant.")] = None,
    *,
    monthly: Annotated[bool, typer.Option("--monthly", help="Count anew each month (UTC).")] = False,
    soft: Annotated[bool, typer.Option("--soft", help="Only warn of what does not fit.")] = False,
) -> None:
    """Set what may be spent."""
    try:
        seconds = None if limit == "none" else float(limit)
    except ValueError:
        raise typer.BadParameter(f"give GPU-seconds such as 3600, or none; not {limit!r}") from None
    with Lockstep() as lockstep:
        period = "month" if monthly else "none"
        typer.echo(_line(lockstep.budgets.set(seconds, api_key_id=key, period=period, hard=not soft)))


def _line(standing: Budget) -> str:
    owner = standing.api_key_id or "tenant"
    limit = "no limit" if standing.limit is None else f"{standing.left:.3f} of {standing.limit:.3f} left"
    period = " this month" if standing.period == "month" else ""
    spent = f"{standing.spent:.3f} spent{period}, {standing.reserved:.3f} reserved"
    return f"budget of {owner}: {limit} ({spent})"
