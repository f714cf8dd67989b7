"""API keys on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import GivenTime, RequestBody, Resource, Text, Time
from core.tenants import models

Scope = Literal["generate", "train", "distill", "read", "admin"]
_DAY = 24 * 3600


class CreateApiKey(RequestBody):
    """What a new key may do, and how long."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "web shop", "scopes": ["generate", "read"]}]})

    name: Annotated[Text, Field(min_length=1, max_length=200)] = Field(description="For people.")
    scopes: list[Scope] = Field(min_length=1, max_length=20, description="What it may do.")
    expires_at: GivenTime | None = Field(default=None, description="From then on it works no more. Null: never.")
    max_running: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Most of its jobs at once. Null: as many as the tenant may run."
    )


class RotateApiKey(RequestBody):
    """How long the old key works on."""

    overlap_seconds: int = Field(
        default=_DAY, ge=0, le=30 * _DAY, description="How long the old key works beside the new one."
    )


class ApiKey(Resource):
    """A key, without the key itself."""

    id: str = Field(examples=["key_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["api_key"] = "api_key"
    name: str
    hint: str = Field(description="How the key begins.", examples=["lk_live_4fQz…"])
    scopes: list[str]
    max_running: int | None
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None = Field(description="To about a minute.")
    previous_until: Time | None = Field(description="So long the key works that was there before the last rotation.")
    revoked_at: Time | None

    @classmethod
    def of(cls, key: models.ApiKey) -> ApiKey:
        """The key as it is shown."""
        return cls.model_validate(_members(key))


class NewApiKey(ApiKey):
    """A key that was just made."""

    key: str = Field(description="Send it as `Authorization: Bearer`. Shown this once.")

    @classmethod
    def made(cls, row: models.ApiKey, key: str) -> NewApiKey:
        """The key as it is shown this once."""
        return cls.model_validate(_members(row) | {"key": key})


def _members(key: models.ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in ApiKey.model_fields if hasattr(key, name)}
