"""How a worker's device fares: its GPU by NVIDIA's management library, elsewhere the CPU and memory that it takes.

Read in a thread of its own and told with the heartbeat: a driver that hangs must not make the worker look dead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psutil
import pynvml
import structlog

from core.jobs.workers import Vitals

_EVERY: Final = 5.0  # seconds
_STALE: Final = 15.0  # seconds: what is older is not told any more

log = structlog.get_logger()


class GpuGauge:
    """One GPU, by the id that it has in every process. What its driver does not tell is None."""

    def __init__(self, uuid: str) -> None:
        """Raise ``pynvml.NVMLError`` where the library or the GPU is not there."""
        pynvml.nvmlInit()
        self.uuid = uuid
        self._device = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def read(self) -> Vitals:
        """How it fares now; a GPU's whole memory counts, whoever holds it."""
        memory = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(self._device))
        load = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(self._device).gpu)
        power = _told(lambda: pynvml.nvmlDeviceGetPowerUsage(self._device))
        return Vitals(
            device_kind="gpu",
            utilization=None if load is None else load / 100,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            temperature_c=_told(lambda: pynvml.nvmlDeviceGetTemperature(self._device, pynvml.NVML_TEMPERATURE_GPU)),
            power_w=None if power is None else power / 1000,
        )


def _told(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except pynvml.NVMLError:
        return None


class CpuGauge:
    """This process with all that it has started."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._busy, self._at = self._busy_seconds(), time.monotonic()

    def read(self) -> Vitals:
        """What share of all cores it took since the last reading, and the memory that it holds."""
        busy, now = self._busy_seconds(), time.monotonic()
        share = (busy - self._busy) / max(now - self._at, 0.001) / (psutil.cpu_count() or 1)
        self._busy, self._at = busy, now
        return Vitals(
            device_kind="cpu",
            utilization=min(max(share, 0.0), 1.0),  # less than before: one that had worked is gone
            memory_used_bytes=int(sum(self._of_all(lambda process: process.memory_info().rss))),
            memory_total_bytes=psutil.virtual_memory().total,
        )

    def _busy_seconds(self) -> float:
        def of(process: psutil.Process) -> float:
            times = process.cpu_times()
            return float(times.user + times.system)

        return sum(self._of_all(of))

    def _of_all(self, figure: Callable[[psutil.Process], float]) -> list[float]:
        figures = []
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):  # it ended meanwhile
                figures.append(figure(process))
        return figures


class VitalsReader:
    """Reads again and again; ``gpu`` says which GPU the engine is on by now, None for none."""

    def __init__(self, gpu: Callable[[], str | None]) -> None:
        self._gpu = gpu
        self._cpu_gauge = CpuGauge()
        self._gpu_gauge: GpuGauge | None = None
        self._latest: Vitals | None = None
        self._read_at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read_until_closed, name="vitals", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a reading that hangs is left behind."""
        self._closed.set()

    @property
    def latest(self) -> Vitals | None:
        """The last reading, unless it is old."""
        return self._latest if time.monotonic() - self._read_at < _STALE else None

    def read(self) -> Vitals:
        """Take a reading."""
        uuid = self._gpu()
        if uuid is None:
            return self._cpu_gauge.read()
        if self._gpu_gauge is None or self._gpu_gauge.uuid != uuid:
            self._gpu_gauge = GpuGauge(uuid)
        return self._gpu_gauge.read()

    def _read_until_closed(self) -> None:
        is_told = False
        while True:
            try:
                self._latest, self._read_at, is_told = self.read(), time.monotonic(), False
            except (pynvml.NVMLError, psutil.Error) as error:
                if not is_told:
                    log.warning("vitals.unread", error=str(error))
                is_told, self._gpu_gauge = True, None
            if self._closed.wait(_EVERY):
                return
