"""Uploads on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.schemas.common import RequestBody, Resource, Text, Time, UploadPurpose
from core.files.models import PresignedUpload
from core.files.uploads import Announcement

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CreateUpload(RequestBody):
    """A file that is about to be uploaded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "tom-1.jpg", "size_bytes": 2413877}]})

    name: Text = Field(default="", max_length=1000)
    size_bytes: int = Field(ge=1, le=2**53, description="Exactly.")
    purpose: UploadPurpose = "picture"
    sha256: Sha256 | None = Field(default=None, description="Of the bytes, in hexadecimal: others are then refused.")

    def as_announcement(self) -> Announcement:
        """What is asked of the domain."""
        return Announcement(self.purpose, self.name, self.size_bytes, self.sha256)


class UploadPart(Resource):
    """A stretch of the bytes, and where it is sent."""

    number: int = Field(description="From 1, in the order of the bytes.")
    size_bytes: int
    url: str = Field(description="`PUT` exactly these bytes there. It needs no key, and takes none.")


class Upload(Resource):
    """A file that is being uploaded."""

    id: str = Field(examples=["upl_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["upload"] = "upload"
    purpose: UploadPurpose
    name: str
    size_bytes: int
    sha256: str | None
    created_at: Time
    expires_at: Time = Field(description="It can be sent and completed until then; then it is thrown away.")
    file_id: str | None = Field(description="The file that it has become; null until it is completed.")
    parts: list[UploadPart] = Field(description="Where the bytes are sent; none once it is completed.")

    @classmethod
    def of(cls, upload: PresignedUpload, parts: list[UploadPart]) -> Upload:
        """The upload as it is shown."""
        return cls.model_validate(
            {
                "id": upload.id,
                "purpose": upload.purpose,
                "name": upload.name,
                "size_bytes": upload.size_bytes,
                "sha256": upload.sha256,
                "created_at": upload.created_at,
                "expires_at": upload.expires_at,
                "file_id": upload.file_id,
                "parts": parts,
            }
        )
