"""Signatures that let somebody without a key do one thing, for one tenant, until a moment. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from itsdangerous import BadData, URLSafeSerializer

from core.errors import Conflict, SignatureInvalid


@dataclass(frozen=True)
class Permit:
    """Whose things, and until when."""

    tenant_id: str
    until: datetime


class Signer:
    """Signs permits with the deployment's secret. Without one it signs none and takes none."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def sign(self, act: str, permit: Permit) -> str:
        """A text for an address that permits ``act``, such as ``read file_1``; whole seconds count. Raises Conflict."""
        return self._serializer(act).dumps([permit.tenant_id, int(permit.until.timestamp())])

    def read(self, act: str, signature: str) -> Permit:
        """What was signed for ``act``; whoever asks looks at the time. Raises SignatureInvalid."""
        try:
            tenant_id, until = self._serializer(act).loads(signature)
        except (BadData, Conflict) as error:
            raise SignatureInvalid("The signature was not made for this by this server.", param="sig") from error
        return Permit(tenant_id, datetime.fromtimestamp(until, UTC))

    def _serializer(self, act: str) -> URLSafeSerializer:
        if self._secret is None:
            raise Conflict("This server signs no addresses: its operator has not set LOCKSTEP_URL_SECRET.")
        return URLSafeSerializer(
            self._secret, salt=act, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
