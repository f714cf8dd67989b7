"""Every type of event there is."""

from __future__ import annotations

from core.jobs.events import EVENT_TYPES as OF_JOBS
from core.webhooks.notices import Notice

ALL_TYPES: tuple[str, ...] = (*OF_JOBS, *Notice)
