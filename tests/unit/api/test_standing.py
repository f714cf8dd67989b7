"""Callers of answers that go on are looked up again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from api.standing import Standing
from core.errors import Unauthenticated
from core.tenants.authentication import Caller

CALLER = Caller("ten_1", "key_1", frozenset({"read", "generate"}), is_operator=True)


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("caller", "holds"),
    [
        (CALLER, True),
        (replace(CALLER, scopes=frozenset({"read"})), False),
        (replace(CALLER, is_operator=False), False),
        (None, False),
    ],
)
async def test_it_holds_while_the_caller_has_the_rights_that_he_came_with(caller: Caller | None, holds: bool) -> None:
    async def look_up() -> Caller:
        if caller is None:
            raise Unauthenticated("revoked")
        return caller

    clock = Clock()
    standing = Standing(CALLER, look_up, now=clock)
    clock.seconds += 9
    assert await standing.holds()  # not looked up yet
    clock.seconds += 1
    assert await standing.holds() is holds


async def test_a_caller_is_not_looked_up_for_every_look() -> None:
    looks: list[float] = []
    clock = Clock()

    async def look_up() -> Caller:
        looks.append(clock.seconds)
        return CALLER

    standing = Standing(CALLER, look_up, now=clock)
    for clock.seconds in range(35):
        assert await standing.holds()
    assert looks == [10, 20, 30]
