"""A cache bounded by the bytes of what it holds, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Values by key, of at most ``most_bytes`` together; one larger than that is never kept."""

    def __init__(self, *, most_bytes: int, size_of: Callable[[V], int]) -> None:
        self._most = most_bytes
        self._size_of = size_of
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """Return the value, which is now the most recently used, or None."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop what has not been used for longest as far as it needs the room."""
        if key in self._held:
            self.bytes -= self._held.pop(key)[1]
        size = self._size_of(value)
        if size > self._most:
            return
        self._held[key] = (value, size)
        self.bytes += size
        while self.bytes > self._most:
            _, (_, dropped) = self._held.popitem(last=False)
            self.bytes -= dropped
