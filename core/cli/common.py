"""What commands have in common: what they tell the operator, and transactions as the owner of the tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from core.config import Settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker


def say(text: str) -> None:
    """Tell the operator; standard output is for what a command answers."""
    typer.echo(text, err=True)


def fail(text: str) -> NoReturn:
    """Tell the operator what is wrong, and exit with 1."""
    say(f"lockstepd: {text}")
    sys.exit(1)


@contextmanager
def owner_session(settings: Settings | None = None) -> Iterator[Session]:
    """One transaction as the role that owns the tables, by default in the deployment that runs here."""
    from core.embedded.stack import running_settings

    with owner_sessions(settings or running_settings(Settings())) as sessions, sessions.begin() as session:
        yield session


@contextmanager
def owner_sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    """Transactions as the role that owns the tables."""
    from sqlalchemy.orm import sessionmaker

    from core.db.engine import sync_engine

    engine = sync_engine(settings.owner_dsn)
    try:
        yield sessionmaker(engine)
    finally:
        engine.dispose()
