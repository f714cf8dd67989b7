"""Keys of the tenant, and grants of its concepts to others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lockstep.models import ApiKey, Grant, GrantedConcept, NewApiKey, Page
from lockstep.resources import Concepts as OwnConcepts
from lockstep.resources import Resources


class ApiKeys(Resources):
    """The tenant's keys; all of this needs one of the scope ``admin``."""

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None = None,
        max_running: int | None = None,
    ) -> NewApiKey:
        """A new key. Keep the answer's ``key``: it is told this once."""
        body = {
            "name": name,
            "scopes": list(scopes),
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "max_running": max_running,
        }
        # Tried once: a second one would be a key that nobody knows of.
        return NewApiKey.model_validate(self._transport.post("/v1/api_keys", body, repeat=False).json())

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[ApiKey]:
        """Keys, newest first, with when each was last used."""
        return self._page("/v1/api_keys", ApiKey, {"limit": limit, "after": after})

    def rotate(self, key_id: str, *, overlap_seconds: int | None = None) -> NewApiKey:
        """A new key in the old one's place, which works on for ``overlap_seconds``, by default a day."""
        body = {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}
        answer = self._transport.post(f"/v1/api_keys/{key_id}/rotate", body, repeat=False)
        return NewApiKey.model_validate(answer.json())

    def revoke(self, key_id: str) -> None:
        """Let the key, and the one it replaced, work no more."""
        self._transport.delete(f"/v1/api_keys/{key_id}")


class Concepts(OwnConcepts):
    """What trainings have learned, here or elsewhere, and who else may draw with it."""

    def grant(self, concept: str, *, tenant: str) -> Grant:
        """Let another tenant draw with a concept, by its name or id."""
        return Grant.model_validate(self._transport.post(f"/v1/concepts/{concept}/grants", {"tenant": tenant}).json())

    def grants(self, concept: str, *, limit: int | None = None, after: str | None = None) -> Page[Grant]:
        """Who may draw with a concept, the latest first."""
        return self._page(f"/v1/concepts/{concept}/grants", Grant, {"limit": limit, "after": after})

    def revoke_grant(self, concept: str, *, tenant: str) -> None:
        """Let another tenant draw with a concept no more; what it has queued with it is canceled."""
        self._transport.delete(f"/v1/concepts/{concept}/grants/{tenant}")

    def granted(self, *, limit: int | None = None, after: str | None = None) -> Page[GrantedConcept]:
        """Concepts of other tenants to draw with: list them in a generation as ``{"name": concept.reference}``."""
        return self._page("/v1/granted_concepts", GrantedConcept, {"limit": limit, "after": after})
