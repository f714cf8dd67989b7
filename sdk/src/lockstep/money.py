"""What may be spent of the server's GPUs, what was, and what a request would cost. Amounts are GPU-seconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from lockstep.models import Budget, Limits, Page, Quote, Usage
from lockstep.resources import Resources


class Budgets(Resources):
    """What the tenant and its API keys may spend; for keys with the scope ``admin``."""

    def list(self) -> Page[Budget]:
        """The tenant's budget, then those of the keys that have a limit."""
        return self._page("/v1/budgets", Budget, {})

    def set(
        self, limit: float | None, *, api_key_id: str | None = None, period: str = "none", hard: bool = True
    ) -> Budget:
        """Let the tenant, or one of its keys, spend ``limit`` GPU-seconds; None takes the limit away.

        ``period="month"`` counts anew each month (UTC). What does not fit is refused, unless ``hard=False``.
        """
        body = {"limit": limit, "api_key_id": api_key_id, "period": period, "hard": hard}
        return Budget.model_validate(self._transport.put("/v1/budgets", body).json())


class Quotes(Resources):
    """The most that requests will cost."""

    def create(self, kind: str, **request: Any) -> Quote:
        """Ask what a request would cost, before it is sent.

        ``kind`` is ``"training"``, ``"distillation"``, ``"generation"`` or ``"sweep"``; ``request`` is its body, as the
        API has it. The same request with ``quote=quote.id`` is charged no more, once, if it comes before the quote
        expires.
        """
        given = {name: value for name, value in request.items() if value is not None}
        # Tried like any reading: a quote that nobody uses costs nothing.
        answer = self._transport.post("/v1/quotes", {"kind": kind, "request": given})
        return Quote.model_validate(answer.json())


class Account(Resources):
    """How the tenant stands."""

    def usage(self, *, first: date | None = None, last: date | None = None, by: Sequence[str] = ("day",)) -> Usage:
        """What was charged from the first day to the last (UTC), by default the last 30; at most 92.

        ``by`` groups by any of ``"day"``, ``"kind"``, ``"model"`` and ``"api_key"``.
        """
        days = {name: day.isoformat() for name, day in (("from", first), ("to", last)) if day is not None}
        return Usage.model_validate(self._transport.get("/v1/usage", {**days, "group_by": list(by)}).json())

    def limits(self) -> Limits:
        """What holds for this API key, and how much of it is used."""
        return Limits.model_validate(self._transport.get("/v1/limits").json())
