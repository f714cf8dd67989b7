"""``python -m workers.run``: one GPU-pool worker under Celery.

Threads pool of one: the supervisor's thread answers doorbells while Celery's main thread keeps the connection and
the remote control alive. Time limits and revokes do nothing in this pool (measured), and none are used.
"""

from __future__ import annotations

import os
import socket

from celery import Celery, signals
from kombu.exceptions import OperationalError
from sqlalchemy.orm import sessionmaker

from core.config import Settings
from core.db.engine import sync_engine
from core.logging import configure_logging
from core.storage.s3 import ObjectStore
from core.tracing import open_tracing
from workers.celery_app import SERVE, create_app, queue_name
from workers.gpu_child import GpuChild
from workers.supervisor import Supervisor
from workers.watchdog import Watchdog

_BROKER_PATIENCE = 2.0  # seconds


def create_supervisor(settings: Settings) -> Supervisor:
    """The supervisor that the settings describe; registers itself in Postgres."""
    return Supervisor(
        sessions=sessionmaker(sync_engine(settings.worker_dsn)),
        store=ObjectStore.from_settings(settings),
        child=GpuChild(
            device=settings.device,
            batch_size=settings.batch_size,
            model_bytes=settings.model_bytes,
            compiled=settings.compile,
            distillation_processes=settings.distillation_processes,
            safety_checker=settings.safety_checker,
            safety_threshold=settings.safety_threshold,
        ),
        pool=settings.pool,
        lease=settings.lease,
        heartbeat=settings.heartbeat,
        batch_size=settings.batch_size,
        cohort_size=settings.cohort_size,
        tracing=open_tracing("worker", settings.otlp_endpoint),
    )


def attach(app: Celery, supervisor: Supervisor) -> None:
    """Answer doorbells with ``supervisor``, and drain it when Celery begins to shut down."""

    def serve(pool: str) -> None:  # noqa: ARG001 - the doorbell names its pool; this worker listens to one
        supervisor.serve()

    app.task(name=SERVE)(serve)

    def drain(**_: object) -> None:
        supervisor.drain()

    signals.worker_shutting_down.connect(drain, weak=False)


def broker_answers(app: Celery) -> bool:
    """Whether a new connection to the broker can be made."""
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=_BROKER_PATIENCE)
    except OperationalError:
        return False
    return True


def guard(app: Celery, settings: Settings, supervisor: Supervisor) -> None:
    """Have a worker that hears no doorbell leave, with its engine."""

    def leave() -> None:
        try:
            supervisor.close()
        finally:
            os._exit(os.EX_TEMPFAIL)  # Celery would wait for the connection that it thinks it has

    sessions = sessionmaker(sync_engine(settings.worker_dsn, pool_size=1))
    Watchdog(sessions, supervisor.worker_id, broker_answers=lambda: broker_answers(app), leave=leave).start()


def main() -> None:
    """Run until told to stop."""
    settings = Settings()
    configure_logging("worker")
    supervisor = create_supervisor(settings)
    app = create_app(settings)
    attach(app, supervisor)
    try:
        supervisor.start()
        guard(app, settings, supervisor)
        app.worker_main(
            [
                "worker", "--pool", "threads", "--concurrency", "1", "--queues", queue_name(settings.pool),
                "--hostname", f"gpu-{os.getpid()}@{socket.gethostname()}",
                "--without-gossip", "--without-mingle", "--loglevel", "WARNING",
            ]
        )  # fmt: skip
    finally:
        supervisor.close()


if __name__ == "__main__":
    main()
