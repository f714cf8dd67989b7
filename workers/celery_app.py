"""Every Celery setting, with the reason for each, and the doorbell.

Celery carries no work: a message says only "pool P has work", and the worker that hears it claims from Postgres.
A lost, late, doubled or reordered message does no harm, so nothing here tries to make Celery reliable; it is
kept from going deaf. Retries, schedules, cancels, limits and results live in Postgres.
"""

from __future__ import annotations

from celery import Celery

from core.config import Settings

SERVE = "pool.serve"
_DOORBELL_EXPIRES = 3600  # seconds, by the worker's clock: long enough for one that is wrong


def create_app(settings: Settings) -> Celery:
    """The Celery application of this deployment; nothing connects until it is used."""
    app = Celery("lockstep", set_as_current=False)
    app.conf.update(
        broker_url=settings.broker_url,
        # No result backend: the outcome of a job is a row.
        result_backend=None,
        task_ignore_result=True,
        # Ids only, as JSON: whoever can write to the broker must not be able to run code.
        task_serializer="json",
        accept_content=["json"],
        # A doorbell is acknowledged when it is heard: a worker that dies leaves a lease to expire, not a message.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        # One doorbell in hand at most, so that the others reach other workers.
        worker_prefetch_multiplier=1,
        # With it a threads pool sleeps about a second after every task (measured with Celery 5.7).
        worker_disable_prefetch=False,
        # Its pub/sub socket is what notices a broken broker; without it a worker can stay deaf for ever (measured).
        worker_enable_remote_control=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        # An error on publishing means "maybe sent"; the ringer rings again anyway.
        task_publish_retry=False,
        broker_transport_options={
            "visibility_timeout": 3600,
            # Above the one-second BRPOP; without it a publish to a stopped broker hangs for ever (measured).
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            # A half-open connection is noticed after 1 s + twice this.
            "health_check_interval": 10,
        },
    )
    return app


def queue_name(pool: str) -> str:
    """The queue whose messages are the pool's doorbells."""
    return f"pool.{pool}"


def ring(app: Celery, pool: str, times: int) -> None:
    """Send ``times`` doorbells; raises ``kombu.exceptions.OperationalError`` when the broker does not answer."""
    with app.producer_pool.acquire(block=True, timeout=5) as producer:
        for _ in range(times):
            app.send_task(SERVE, args=[pool], queue=queue_name(pool), expires=_DOORBELL_EXPIRES, producer=producer)
