"""Removing objects that nothing names: of attempts that were lost, of rows that are gone, checkpoints of ended jobs.

Only what has lain for a day, so that no upload and no attempt in flight is touched, and only under the keys that
``core.storage.keys`` makes: whatever else lies in the bucket is somebody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session, sessionmaker

from core.db.statements import NOW
from core.storage import keys
from core.storage.s3 import ObjectStore
from workers.maintain import statements

_LEFT_ALONE = timedelta(hours=24)
_PAGES = 20  # of one pass
_PAGE = 1000  # objects, as many as a store lists and removes in one request


@dataclass(frozen=True)
class SweepCounts:
    """How many orphans were removed."""

    orphans: int = 0


class Sweeper:
    """Goes through the bucket in the order of keys, a stretch with each pass, and begins again at its end."""

    def __init__(
        self, sessions: sessionmaker[Session], store: ObjectStore, *, pages: int = _PAGES, page: int = _PAGE
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._pages = pages
        self._page = page
        self._after = ""

    def run_once(self) -> SweepCounts:
        """Look at the next stretch; raises StorageUnavailable."""
        orphans = 0
        for _ in range(self._pages):
            listed = self._store.list_page(after=self._after, limit=self._page)
            with self._sessions() as session:
                before = session.execute(NOW).scalar_one() - _LEFT_ALONE
            orphans += self._sweep([found.key for found in listed if found.modified_at < before])
            if len(listed) < self._page:
                self._after = ""
                break
            self._after = listed[-1].key
        return SweepCounts(orphans)

    def _sweep(self, old: Sequence[str]) -> int:
        owned = [(key, owner) for key in old if (owner := keys.owner(key)) is not None]
        if not owned:
            return 0
        values = {
            "keys": [key for key, _ in owned],
            "job_ids": [owner.job_id for _, owner in owned],
            "tokens": [owner.token for _, owner in owned],
        }
        with self._sessions() as session:
            orphans = session.execute(statements.ORPHANS, values).scalars().all()
        self._store.delete_many(orphans)
        return len(orphans)
