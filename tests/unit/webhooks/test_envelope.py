from __future__ import annotations

from datetime import datetime, timedelta, timezone

from core.jobs.models import Event
from core.webhooks.envelope import event_body


def test_an_event_is_told_in_the_published_shape():
    event = Event(
        id="evt_1",
        tenant_id="ten_1",
        job_id="job_1",
        sequence=7,
        type="training.succeeded",
        data={"id": "job_1", "object": "training"},
        created_at=datetime(2026, 1, 1, 1, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1))),
    )
    assert event_body(event) == {
        "id": "evt_1",
        "object": "event",
        "type": "training.succeeded",
        "timestamp": "2026-01-01T00:00:00.250000Z",
        "created_at": 1_767_225_600,
        "sequence": 7,
        "data": {"id": "job_1", "object": "training"},
    }
