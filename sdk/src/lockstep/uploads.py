"""Uploads in two steps: announced with a key, sent by whoever has the addresses, completed with a key."""

from __future__ import annotations

import hashlib
from datetime import datetime
from os import PathLike

from lockstep.models import File, Resource
from lockstep.resources import Resources, named_content

_PATH = "/v1/uploads"


class UploadPart(Resource):
    """A stretch of the bytes, and where it is sent with ``PUT``; that needs no key, and must not be sent one."""

    number: int
    size_bytes: int
    url: str


class Upload(Resource):
    """A file that is being uploaded; ``file_id`` is None until it is completed."""

    id: str
    purpose: str
    name: str
    size_bytes: int
    sha256: str | None = None
    created_at: datetime
    expires_at: datetime
    file_id: str | None = None
    parts: tuple[UploadPart, ...] = ()


class Uploads(Resources):
    """Files whose bytes go to signed addresses: from somebody without a key, or straight to object storage."""

    def create(
        self,
        *,
        size_bytes: int,
        name: str | None = None,
        purpose: str | None = None,
        sha256: str | None = None,
        idempotency_key: str | None = None,
    ) -> Upload:
        """Announce a file of exactly so many bytes; its ``parts`` say where they are sent."""
        body = {"size_bytes": size_bytes, "name": name, "purpose": purpose, "sha256": sha256}
        answer = self._transport.post(_PATH, body, idempotency_key=idempotency_key)
        return Upload.model_validate(answer.json())

    def get(self, upload_id: str) -> Upload:
        """An upload, with the addresses of its parts until it is completed."""
        return Upload.model_validate(self._transport.get(f"{_PATH}/{upload_id}").json())

    def send_parts(self, upload: Upload, content: bytes) -> None:
        """Send all bytes of an upload, part by part."""
        start = 0
        for part in upload.parts:
            self._transport.put_content(part.url, content[start : start + part.size_bytes])
            start += part.size_bytes

    def complete(self, upload_id: str) -> File:
        """Make a file of what was sent; repeating it gives the same file."""
        return File.model_validate(self._transport.post(f"{_PATH}/{upload_id}/complete").json())

    def delete(self, upload_id: str) -> None:
        """Forget an upload, and what was sent. A file that it has become stays."""
        self._transport.delete(f"{_PATH}/{upload_id}")

    def send(self, content: str | PathLike[str] | bytes, *, name: str | None = None, purpose: str = "picture") -> File:
        """Do it all: announce a file, from a path or from its bytes, send it, and complete it."""
        name, data = named_content(content, name, otherwise=purpose)
        sha256 = hashlib.sha256(data).hexdigest()
        upload = self.create(size_bytes=len(data), name=name, purpose=purpose, sha256=sha256)
        self.send_parts(upload, data)
        return self.complete(upload.id)
