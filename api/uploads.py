"""What every upload goes through, in whichever way its bytes came: it is recognised by its content, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import anyio
from pydantic import BaseModel

from api.dependencies import Resources
from core.concepts import header
from core.errors import TooLarge
from core.files.decoding import Decoder
from core.files.library import Upload
from core.files.pictures import MEDIA_TYPE


class SentFile(BaseModel):
    """What makes two uploads the same request."""

    name: str
    purpose: str
    sha256: str

    @classmethod
    async def of(cls, name: str, purpose: str, data: bytes) -> SentFile:
        """Of the bytes as they were sent."""
        sha256 = await anyio.to_thread.run_sync(lambda: hashlib.sha256(data).hexdigest())
        return cls(name=name, purpose=purpose, sha256=sha256)


def check_size(server: Resources, size_bytes: int, *, param: str) -> None:
    """Raise TooLarge for more bytes than are accepted."""
    limit = server.settings.max_upload_bytes
    if size_bytes > limit:
        raise TooLarge(f"The file has {size_bytes} bytes; {limit} are accepted.", param=param)


async def understood(server: Resources, purpose: str, data: bytes) -> Upload:
    """What is kept of the bytes; raises what the decoders raise."""
    return await anyio.to_thread.run_sync(partial(_READERS[purpose], server.decoder, data), limiter=server.decoders)


def _picture(decoder: Decoder, data: bytes) -> Upload:
    picture = decoder.normalise(data)
    return Upload("picture", picture.png, MEDIA_TYPE, picture.width, picture.height)


def _concept(_: Decoder, data: bytes) -> Upload:
    found = header.read_header(data)
    return Upload("concept_upload", data, header.MEDIA_TYPE, header=found.model_dump(mode="json"))


_READERS: Mapping[str, Callable[[Decoder, bytes], Upload]] = {"picture": _picture, "concept_upload": _concept}
