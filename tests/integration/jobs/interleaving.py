"""Two pieces of work on two connections, interleaved statement by statement as a schedule says.

Before each of its statements, those that travel together included, and before its commit, a piece waits until it is its
turn. One that is held up by a lock of the other is left behind until the other has let go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, TextClause, event

from core.db import pipeline

_BLOCKED_SECONDS = 0.03  # silent for longer: it waits for a lock of the other
_PATIENCE_SECONDS = 20.0
_here = threading.local()


class _Piece:
    """One thread of work that goes on by one statement whenever it is told to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._go = threading.Semaphore(0)
        self._arrived = threading.Event()
        self._free = False
        self.is_over = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _here.piece = self
        self.wait_for_turn()
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self.is_over = True
        self._arrived.set()

    def wait_for_turn(self) -> None:
        if not self._free:
            self._arrived.set()
            self._go.acquire()

    def step(self) -> None:
        """Let it go on up to its next statement, or leave it behind where it waits for a lock."""
        self._arrived.clear()
        self._go.release()
        self._arrived.wait(_BLOCKED_SECONDS)

    def set_free(self) -> None:
        """Let it run to its end."""
        self._free = True
        self._go.release(1000)

    def join(self) -> None:
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            raise AssertionError("a deadlock, or somebody never lets go of a lock")
        if self.error is not None:
            raise self.error


def _turn(*_: object) -> None:
    piece = getattr(_here, "piece", None)
    if piece is not None:
        piece.wait_for_turn()


def watch(engines: Iterable[Engine]) -> None:
    """Make the statements and commits of these engines wait for their turn, in pieces that are raced."""
    for engine in engines:
        event.listen(engine, "before_cursor_execute", _turn)
        event.listen(engine, "commit", _turn)


@contextmanager
def watched_exchanges() -> Iterator[None]:
    """Make the statements of exchanges wait for their turn as well: SQLAlchemy does not see them."""
    compiled = pipeline._sql

    def sql(statement: TextClause) -> str:
        _turn()
        return compiled(statement)

    pipeline._sql = sql  # type: ignore[assignment]
    try:
        yield
    finally:
        pipeline._sql = compiled


def race(one: Callable[[], Any], other: Callable[[], Any], schedule: Sequence[bool]) -> None:
    """Do both, by turns while the schedule lasts; raises what either raises, and AssertionError when they deadlock."""
    pieces = (_Piece(one), _Piece(other))
    for is_others in schedule:
        piece = pieces[is_others]
        if not piece.is_over:
            piece.step()
    for piece in pieces:
        piece.set_free()
    for piece in pieces:
        piece.join()
