from __future__ import annotations

from tests.waiting import until


def test_a_worker_tells_how_its_device_fares(deployment, child):
    supervisor = deployment.supervisor(child=child)
    supervisor.start()

    def row():
        return deployment.one("SELECT * FROM workers WHERE id = :id", id=supervisor.worker_id)

    try:
        until(lambda: (supervisor._beat(), row().device_kind)[1] is not None)
        told = row()
    finally:
        supervisor.drain()
        supervisor._vitals.close()
        supervisor._become("stopped")
    assert told.device_kind == ("cpu" if child.gpu is None else "gpu")
    assert 0 <= told.utilization <= 1
    assert 0 < told.memory_used_bytes < told.memory_total_bytes
    assert (told.temperature_c is None) == (child.gpu is None)
