"""Carrying out self tests, one at a time, and clearing away what any left behind."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.errors import Conflict, NotFound, StorageUnavailable
from core.leaving.deletion import delete_tenant
from core.operations.audit import Actor
from core.selftest import records
from core.selftest.records import Stage
from core.storage.s3 import ObjectStore
from workers.maintain.listener import listening
from workers.maintain.trial import PATIENCE, Patience, Trial

_ACTOR: Final = Actor("selftest")
_LOOK_SECONDS: Final = 0.5
_CLEAR_SECONDS: Final = 60.0
_LET_GO_SECONDS: Final = 10.0  # until a job that was asked to stop has

log = structlog.get_logger()


@dataclass(frozen=True)
class SelfTestCounts:
    """What one pass did."""

    carried_out: int = 0
    cleared: int = 0


class SelfTester:
    """``own`` is where it listens while it does: what the sender may send to, though it is private."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        store: ObjectStore,
        *,
        url: str,
        own: set[str],
        patience: Patience = PATIENCE,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._url = url
        self._own = own
        self._patience = patience
        self._stop = threading.Event()
        self._clear_at = 0.0

    def stop(self) -> None:
        """Have the one under way come to its end at once; what it had is cleared away."""
        self._stop.set()

    def run_once(self) -> SelfTestCounts:
        """Carry out the self test that waits, if one does."""
        cleared = self._clear() if time.monotonic() >= self._clear_at else 0
        with self._sessions.begin() as session:
            test_id = records.take_up(session)
        if test_id is not None:
            self._carry_out(test_id)
        return SelfTestCounts(int(test_id is not None), cleared)

    def _clear(self) -> int:
        """Clear away what self tests left behind; not again at once, for every try is written down."""
        self._clear_at = time.monotonic() + _CLEAR_SECONDS
        with self._sessions.begin() as session:
            left = records.left_behind(session)
        return sum(self._clean_up(test_id, tenant_id).state == "ok" for test_id, tenant_id in left.items())

    def _carry_out(self, test_id: str) -> None:
        with listening(self._own) as listener:
            trial = Trial(
                sessions=self._sessions,
                test_id=test_id,
                url=self._url,
                listener=listener,
                tell=partial(self._tell, test_id),
                stop=self._stop,
                patience=self._patience,
            )
            stages = list(trial.run())
        if trial.tenant_id:
            stages.append(self._clean_up(test_id, trial.tenant_id))
        with self._sessions.begin() as session:
            records.finish(session, test_id, stages)
        log.info("selftest.done", test=test_id, stages={stage.name: stage.state for stage in stages})

    def _tell(self, test_id: str, stages: list[Stage]) -> None:
        with self._sessions.begin() as session:
            records.keep_stages(session, test_id, stages)

    def _clean_up(self, test_id: str, tenant_id: str) -> Stage:
        """The last stage; what cannot be cleared away now is by a later pass."""
        started, error = time.monotonic(), None
        try:
            self._remove(tenant_id)
        except (Conflict, StorageUnavailable) as failed:
            error = f"{failed.detail} It is tried again until nothing is left."
        else:
            with self._sessions.begin() as session:
                records.forget_subject(session, test_id)
        seconds = round(time.monotonic() - started, 3)
        return Stage("cleanup", "ok" if error is None else "failed", seconds, error)

    def _remove(self, tenant_id: str) -> None:
        """Remove the tenant with all it has; raises Conflict while its job still runs, and StorageUnavailable."""
        until = time.monotonic() + _LET_GO_SECONDS
        while True:
            try:
                delete_tenant(self._sessions, self._store, _ACTOR, tenant_id)
            except NotFound:
                return
            except Conflict:
                if time.monotonic() > until or self._stop.wait(_LOOK_SECONDS):
                    raise
            else:
                return
