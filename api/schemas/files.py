"""Files on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.common import FilePurpose, RequestBody, Resource, Time
from api.urls import Urls
from core.files import models


class File(Resource):
    """An uploaded or produced object."""

    id: str = Field(examples=["file_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["file"] = "file"
    purpose: FilePurpose = Field(
        description="An uploaded picture, a picture that a generation drew, a trained concept; of a distillation, the "
        "pairs it learns from, a preview on the way (as a quick look of the studio is one, too), or the student; an "
        "uploaded concept file until it is imported."
    )
    name: str = Field(examples=["tom-1.jpg"])
    media_type: str = Field(examples=["image/png"])
    size_bytes: int
    sha256: str = Field(description="Of the bytes as stored, in hexadecimal.")
    width: int | None = Field(description="In pixels; null for what is no picture.")
    height: int | None
    job_id: str | None = Field(description="The job that produced it; null for an upload.")
    created_at: Time
    content_url: str = Field(description="Where its bytes are, for an API key of its tenant.")

    @classmethod
    def of(cls, file: models.File, urls: Urls) -> File:
        """The file as it is shown."""
        return cls.model_validate(
            {
                "id": file.id,
                "purpose": file.purpose,
                "name": file.name,
                "media_type": file.media_type,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "width": file.width,
                "height": file.height,
                "job_id": file.job_id,
                "created_at": file.created_at,
                "content_url": urls.file_content(file.id),
            }
        )


class SignUrl(RequestBody):
    """How long an address is to hold."""

    expires_in: int = Field(default=3600, ge=1, le=7 * 24 * 3600, description="Seconds from now on.")


class SignedUrl(Resource):
    """An address that needs no key."""

    object: Literal["signed_url"] = "signed_url"
    url: str = Field(description="A `GET` of it answers whoever has it, as `content_url` answers you.")
    expires_at: Time
