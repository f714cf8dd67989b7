"""Decoding strangers' pictures in processes of their own: bounded in memory and time, and free to die.

A decoder is a large program in C that reads whatever bytes it is given. What it does with them ends in its process; the
API goes on, and whoever sent them is told that they are no picture.
"""

from __future__ import annotations

import multiprocessing
import resource
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta

import structlog
from pebble import ProcessExpired, ProcessPool

from core.errors import PictureUnreadable
from core.files.pictures import Picture, normalise

log = structlog.get_logger()

PROCESSES = 2
_PATIENCE = timedelta(seconds=20)
_BASE_BYTES = 512 * 1024**2  # of addresses, for the interpreter and the libraries
_BYTES_PER_PIXEL = 32  # decoded, turned, with transparency and as RGB, and what the encoder works with
_MOST_TASKS = 200  # then another process takes over, whatever the libraries leaked


class Decoder:
    """A few processes that decode. Safe to share between threads; the processes start with the first picture."""

    def __init__(self, *, max_pixels: int, patience: timedelta = _PATIENCE, memory_bytes: int | None = None) -> None:
        """``memory_bytes`` is the most that a process may map; by default what ``max_pixels`` may take."""
        self._max_pixels = max_pixels
        self._patience = patience
        self._memory_bytes = memory_bytes or _BASE_BYTES + _BYTES_PER_PIXEL * max_pixels
        self._changing = threading.Lock()
        self._pool: ProcessPool | None = None

    def normalise(self, data: bytes) -> Picture:
        """As `core.files.pictures.normalise`, elsewhere; blocks.

        Raises PictureTooLarge; PictureUnreadable for what took too long, too much memory or the process with it, too.
        """
        seconds = self._patience.total_seconds()
        pool = self._working()
        task = pool.schedule(normalise, args=[data], kwargs={"max_pixels": self._max_pixels}, timeout=seconds)
        try:
            return task.result()
        except TimeoutError as error:
            raise PictureUnreadable(f"The picture was not decoded within {seconds:g} s.", param="file") from error
        except (ProcessExpired, BrokenProcessPool, CancelledError, MemoryError) as error:
            log.warning("decoder.died", bytes=len(data), error=str(error))
            raise PictureUnreadable("The picture cannot be decoded.", param="file") from error

    def close(self) -> None:
        """End the processes, whatever they are at."""
        with self._changing:
            self._end()

    def _working(self) -> ProcessPool:
        """The pool; another one where it broke, as it may when a process is killed while it is handed a picture."""
        with self._changing:
            if self._pool is None or not self._pool.active:
                self._end()
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload([__name__])
                self._pool = ProcessPool(
                    max_workers=PROCESSES,
                    max_tasks=_MOST_TASKS,
                    initializer=_bound,
                    initargs=[self._memory_bytes],
                    context=context,
                )
            return self._pool

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
            self._pool = None


def _bound(memory_bytes: int) -> None:
    """Limit this process; how long it takes is watched from outside."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes nothing but its answer
