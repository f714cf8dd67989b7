"""What ``docs/webhooks.md`` promises is what the sender does."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.jobs.models import Event
from core.webhooks.client import DEADLINE, MOST_BODY
from core.webhooks.envelope import event_body
from core.webhooks.redelivery import MOST_RECOVERED
from core.webhooks.schedule import DELAYS, FAILING_FOR, MAX_ATTEMPTS
from core.webhooks.sender import LEASE, SendLimits
from core.webhooks.signing import new_secret, sign
from core.webhooks.subscriptions import OVERLAP

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours"}


def test_the_table_of_waits_is_the_schedule():
    (row,) = re.findall(r"^\| wait \|(.+)\|$", PAGE, re.MULTILINE)
    cells = [cell.split() for cell in row.split("|")]
    assert tuple(timedelta(**{UNITS[unit]: int(number)}) for number, unit in cells) == DELAYS
    assert MAX_ATTEMPTS == 10
    assert "ten times in all" in PAGE


def test_the_limits_are_the_senders():
    assert f"within {DEADLINE.seconds} seconds in all" in PAGE
    assert f"{LEASE.seconds} seconds after they were claimed" in PAGE
    limits = SendLimits()
    text = " ".join(PAGE.split())
    assert f"holds at most {limits.per_endpoint} requests at a time, a tenant at most {limits.per_tenant}." in text
    assert (limits.failing_share, limits.per_endpoint // limits.failing_share) == (4, 1)
    assert "one at a time each, a quarter of their tenant's and a quarter of all" in text
    assert f"failed for {FAILING_FOR.days} days" in text
    assert f"up to {MOST_RECOVERED:,} of each" in text
    assert f"For {OVERLAP // timedelta(hours=1)} hours every webhook is signed by both" in text
    assert f"no more than {MOST_BODY // 1024} kB of an answer" in text


def test_the_example_of_a_receiver_verifies_and_reads_a_webhook(capsys):
    (example,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    secret = new_secret()
    names: dict[str, Any] = {"signing_secret": secret}
    exec(example, names)
    event = Event(
        id="evt_1", sequence=3, type="generation.succeeded", data={"result": "drawn"}, created_at=datetime.now(UTC)
    )
    body = json.dumps(event_body(event)).encode()
    names["receive"](sign([secret], event.id, datetime.now(UTC), body), body)
    assert capsys.readouterr().out == "drawn\n"
