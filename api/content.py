"""Serving stored bytes: whole or one range (RFC 9110, section 14), with validators that save the transfer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from core.errors import NotFound
from core.files.models import File
from core.storage.s3 import ObjectMissing, ObjectStore

RESPONSES: Final[Mapping[int | str, dict[str, Any]]] = {
    206: {"description": "The range of bytes asked for.", "content": {"*/*": {}}},
    304: {"description": "The client has them already."},
    416: {"description": "The range lies outside of what there is."},
}
"""What a route that serves bytes may answer besides 200."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int


class Unsatisfiable(Exception):
    """The range lies wholly outside of what there is."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range asked for, cut to what there is; None for the whole: no range, several, or one that is malformed."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if match[2] and int(match[2]) < first:
            return None
    if first >= size:
        raise Unsatisfiable
    return ByteRange(first, last)


async def serve(request: Request, file: File, store: ObjectStore, *, name: str | None = None) -> Response:
    """The file's bytes, or as much of them as the request's conditions ask for; raises NotFound and StorageUnavailable.

    ``name`` is what a client may save it as, where that is not the file's own. Bytes never change under an id, so
    their hash is a strong validator and they may be kept for ever.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(name or file.name, safe='')}"
    wanted = _wanted(request, etag, file.size_bytes)
    span = wanted or ByteRange(0, file.size_bytes - 1)
    try:
        chunks = await run_in_threadpool(store.read, file.key, first=span.first, last=span.last)
    except ObjectMissing as error:  # deleted after its row was read
        raise NotFound(f"The content of {file.id} is gone.", param="id") from error
    headers["Content-Length"] = str(span.last - span.first + 1)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{file.size_bytes}"
    return StreamingResponse(chunks, 206 if wanted else 200, headers, file.media_type)


def _wanted(request: Request, etag: str, size: int) -> ByteRange | None:
    if request.headers.get("if-range", etag) != etag:  # the client's part is of something else: send the whole
        return None
    try:
        return parse_range(request.headers.get("range"), size)
    except Unsatisfiable as error:
        detail = f"The file has {size} bytes."
        raise HTTPException(416, detail, headers={"Content-Range": f"bytes */{size}"}) from error


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has these bytes already (weak comparison, RFC 9110 section 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in known or "*" in known
