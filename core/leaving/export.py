"""A tenant's export: a zip of all its rows as JSON lines, and of its files, written as it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from sqlalchemy import Row, Select
from sqlalchemy.orm import Session, sessionmaker

from core.errors import NotFound
from core.leaving import statements
from core.storage.s3 import ObjectMissing, ObjectStore

_ROWS = 1000  # read at once


def export_tenant(sessions: sessionmaker[Session], store: ObjectStore, tenant_id: str, to: IO[bytes]) -> dict[str, Any]:
    """Write the zip; what is in it comes back, as in its ``manifest.json``. Raises NotFound and StorageUnavailable.

    The rows are those of one moment; a file that is deleted before it is read is named as missing.
    """
    with ZipFile(to, "w") as archive:
        with sessions() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            counts = _write_tables(session, archive, tenant_id)
            files = session.execute(statements.files_of(tenant_id)).all()
        missing = [file.id for file in files if not _write_file(store, archive, file)]
        manifest = {"tenant": tenant_id, "rows": counts, "files": len(files), "missing_files": missing}
        archive.writestr("manifest.json", json.dumps(manifest, indent=2))
    return manifest


def _write_tables(session: Session, archive: ZipFile, tenant_id: str) -> dict[str, int]:
    queries = {"tenants": statements.tenant_row(tenant_id), "users": statements.users_of(tenant_id)}
    queries |= {table.name: statements.rows_of(table, tenant_id) for table in statements.owned_tables()}
    counts = {}
    for name, query in queries.items():
        counts[name] = _write_rows(session, archive, name, query)
        if not counts["tenants"]:
            raise NotFound(f"No tenant {tenant_id}.", param="tenant")
    return counts


def _write_rows(session: Session, archive: ZipFile, name: str, query: Select[Any]) -> int:
    count = 0
    with archive.open(_entry(f"tables/{name}.jsonl", ZIP_DEFLATED), "w", force_zip64=True) as entry:
        for row in session.execute(query, execution_options={"yield_per": _ROWS}):
            entry.write(json.dumps(dict(row._mapping), default=_told, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def _write_file(store: ObjectStore, archive: ZipFile, file: Row[str, str, str, int]) -> bool:
    try:
        chunks: Iterator[bytes] = iter(())
        if file.size_bytes:
            chunks = store.read(file.key, first=0, last=file.size_bytes - 1)
    except ObjectMissing:
        return False
    name = re.sub(r"[^\w.-]+", "_", file.name).lstrip(".") or "file"  # a name from outside leads nowhere else
    with archive.open(_entry(f"files/{file.id}/{name}", ZIP_STORED), "w", force_zip64=True) as entry:
        for chunk in chunks:
            entry.write(chunk)
    return True


def _entry(name: str, compression: int) -> ZipInfo:
    info = ZipInfo(name)
    info.compress_type = compression
    return info


def _told(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
