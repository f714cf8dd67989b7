"""Whether whoever asked may still ask: for answers that go on for as long as a job does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request

from core.errors import Unauthenticated
from core.tenants.authentication import Caller

_LOOK_EVERY: Final = 10.0  # seconds


class Standing:
    """What a caller was when the answer began, looked up anew now and then."""

    def __init__(
        self, caller: Caller, look_up: Callable[[], Awaitable[Caller]], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``look_up`` raises Unauthenticated for a key that was revoked and a session that has ended."""
        self._caller = caller
        self._look_up = look_up
        self._now = now
        self._looked_at = now()

    async def holds(self) -> bool:
        """Whether the caller is known still, with the same rights."""
        if self._now() < self._looked_at + _LOOK_EVERY:
            return True
        self._looked_at = self._now()
        try:
            caller = await self._look_up()
        except Unauthenticated:
            return False
        return (caller.scopes, caller.is_operator) == (self._caller.scopes, self._caller.is_operator)


def standing_of(request: Request) -> Standing:
    """Return that of whoever made the request, who was identified before."""
    standing = request.state.standing
    assert isinstance(standing, Standing)
    return standing
