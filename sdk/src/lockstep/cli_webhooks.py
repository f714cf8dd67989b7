"""``lockstep webhooks``: endpoints, and what became of what was sent to them."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from lockstep.client import Lockstep
from lockstep.printing import local_time, printed_table
from lockstep.webhook_models import WebhookEndpoint

app = typer.Typer(help="Have events sent to addresses, and see what became of them.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, help="How many to show at most.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where events are to be sent.")],
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    in_order: Annotated[
        bool | None, typer.Option("--in-order/--side-by-side", help="A job's events one after the other.")
    ] = None,
) -> None:
    """Make an endpoint and show its secret, this once."""
    with Lockstep() as lockstep:
        made = lockstep.webhook_endpoints.create(url=url, name=name, event_types=event_type or (), in_order=in_order)
    _show_secret(made)


@app.command("list")
def list_endpoints(limit: Limit = 20) -> None:
    """Show the newest endpoints."""
    with Lockstep() as lockstep, printed_table("id", "url", "state", "created") as table:
        for endpoint in islice(lockstep.webhook_endpoints.list(limit=min(limit, 100)), limit):
            table.add_row(endpoint.id, endpoint.url, _state(endpoint), local_time(endpoint.created_at))


@app.command()
def delete(endpoint_id: str) -> None:
    """Send nothing there any more."""
    with Lockstep() as lockstep:
        lockstep.webhook_endpoints.delete(endpoint_id)


@app.command()
def rotate(
    endpoint_id: str,
    now: Annotated[bool, typer.Option("--now", help="Void the old secret at once, as it leaked.")] = False,
) -> None:
    """Replace the secret and show the new one, this once; for a day the old one signs, too."""
    with Lockstep() as lockstep:
        _show_secret(lockstep.webhook_endpoints.rotate_secret(endpoint_id, keep_old_for_24_hours=not now))


@app.command()
def disable(endpoint_id: str) -> None:
    """Hold what is to be sent there until it is enabled."""
    with Lockstep() as lockstep:
        typer.echo(_state(lockstep.webhook_endpoints.disable(endpoint_id)))


@app.command()
def enable(endpoint_id: str) -> None:
    """Send there again, beginning with what was held."""
    with Lockstep() as lockstep:
        typer.echo(_state(lockstep.webhook_endpoints.enable(endpoint_id)))


@app.command()
def test(endpoint_id: str) -> None:
    """Send a test event and show the id of its delivery."""
    with Lockstep() as lockstep:
        typer.echo(lockstep.webhook_endpoints.test(endpoint_id).id)


@app.command()
def log(
    endpoint_id: str,
    state: Annotated[str | None, typer.Option(help="Only pending, held, delivered or failed.")] = None,
    limit: Limit = 20,
) -> None:
    """Show the newest deliveries."""
    with Lockstep() as lockstep, printed_table("id", "event", "state", "attempts", "created") as table:
        found = lockstep.webhook_endpoints.deliveries(endpoint_id, state=state, limit=min(limit, 100))
        for delivery in islice(found, limit):
            created = local_time(delivery.created_at)
            table.add_row(delivery.id, delivery.event_type, delivery.state, str(delivery.attempt), created)


@app.command()
def attempts(endpoint_id: str, delivery_id: str) -> None:
    """Show every request that was made for a delivery."""
    with Lockstep() as lockstep, printed_table("attempt", "at", "milliseconds", "outcome") as table:
        for attempt in lockstep.webhook_endpoints.delivery(endpoint_id, delivery_id).attempts:
            outcome = attempt.error or f"Accepted with {attempt.status}."
            table.add_row(str(attempt.attempt), local_time(attempt.at), str(attempt.duration_ms), outcome)


@app.command()
def resend(endpoint_id: str, delivery_id: str) -> None:
    """Send an event once more, whatever became of it."""
    with Lockstep() as lockstep:
        typer.echo(lockstep.webhook_endpoints.resend(endpoint_id, delivery_id).state)


@app.command()
def recover(
    endpoint_id: str,
    since: Annotated[datetime, typer.Option(help="What happened then or later.")],
    until: Annotated[datetime | None, typer.Option(help="And before this.")] = None,
) -> None:
    """Send what happened since a time and failed, or was never sent."""
    with Lockstep() as lockstep:
        told = lockstep.webhook_endpoints.recover(
            endpoint_id, since=since.astimezone(), until=None if until is None else until.astimezone()
        )
    typer.echo(f"{told.resent} that had failed, {told.added} that were never sent")


def _show_secret(endpoint: WebhookEndpoint) -> None:
    typer.echo(f"{endpoint.id} {endpoint.signing_secret}")


def _state(endpoint: WebhookEndpoint) -> str:
    if endpoint.disabled_reason is not None:
        return f"disabled: {endpoint.disabled_reason}"
    return "enabled" if endpoint.failing_since is None else f"failing since {local_time(endpoint.failing_since)}"
