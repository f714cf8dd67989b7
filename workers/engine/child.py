"""The GPU child: a process that owns the models and does one piece of work after another for its supervisor.

    python -m workers.engine --fd N [--device auto|cpu|cuda] [--threads 1] [--batch-size 8] [--model-bytes 0]
        [--compile] [--distillation-processes 0] [--safety-checker MODULE:NAME] [--safety-threshold 0.8]

It is started with one end of a socket pair as file descriptor N and talks `workers.protocol` over it. A crash, a hang
or an out-of-memory costs this process and the attempt at hand, never the supervisor; to abort it, kill it.

The main thread works and sends. A reader thread receives, so that a `Stop` is seen while a step runs, and so that the
end of the pipe (the parent died) ends the child at once, in the middle of whatever it does: nobody is left to want
the result.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from workers import protocol
from workers.engine.base_model import BaseModel
from workers.engine.compiling import INDUCTOR
from workers.engine.dmd.student_file import load_student
from workers.engine.errors import EngineError, Interrupted, OutOfMemory
from workers.engine.memory import is_out_of_memory, of_machine
from workers.engine.model_cache import ModelCache
from workers.engine.quiet import silence_loading
from workers.engine.safety import Guard
from workers.engine.work import Workbench, failed

_log = logging.getLogger(__name__)
_PARENT_DIED = 3  # exit status


class Inbox:
    """Work that has arrived, and which of it is to stop."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[protocol.Work | protocol.Shutdown] = queue.SimpleQueue()
        self._stops: dict[str, threading.Event] = {}

    def put(self, message: protocol.ToChild) -> None:
        """Take a message off the pipe, in order (reader thread)."""
        if isinstance(message, protocol.Stop):
            # Only known work can be stopped: a late Stop must not hit a later attempt under the same id.
            event = self._stops.get(message.request_id)
            if event is not None:
                event.set()
            return
        if not isinstance(message, protocol.Shutdown):
            self._stops |= {name: threading.Event() for name in _names(message)}
        self._messages.put(message)

    def get(self) -> protocol.Work | protocol.Shutdown:
        """Wait for the next piece of work."""
        return self._messages.get()

    def should_stop(self, request_id: str) -> bool:
        """Tell whether a `Stop` for this work, or this training of a cohort, has come."""
        return self._stops[request_id].is_set()

    def finish(self, work: protocol.Work) -> None:
        """Forget work that has ended."""
        for name in _names(work):
            del self._stops[name]


def _names(work: protocol.Work) -> list[str]:
    """What can be stopped of it."""
    trainings = work.trainings if isinstance(work, protocol.Train) else ()
    return [work.request_id, *(training.request_id for training in trainings)]


class Child:
    """The main loop over one connection."""

    def __init__(
        self,
        connection: Connection,
        *,
        device: torch.device,
        batch_size: int,
        model_bytes: int,
        compiled: bool,
        distillation_processes: int,
        guard: Guard,
    ) -> None:
        self._connection = connection
        self._device = device
        self._inbox = Inbox()
        self._models = ModelCache(
            self._load,
            lambda path, teacher: load_student(Path(path), teacher),
            most_bytes=model_bytes,
            backend=INDUCTOR if compiled else None,
        )
        self._workbench = Workbench(
            self._models,
            guard,
            batch_size=batch_size,
            distillation_processes=distillation_processes,
            say=self._send,
            should_stop=self._inbox.should_stop,
        )

    def run(self) -> None:
        """Serve until `Shutdown`."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._send(protocol.Ready(str(self._device), _device_name(self._device), _gpu(self._device)))
        while not isinstance(work := self._inbox.get(), protocol.Shutdown):
            answer = self._answer(work)
            # Forgotten before the parent hears of it: from then on the same id may come back as another attempt.
            self._inbox.finish(work)
            self._send(protocol.Warm(work.request_id, self._models.warm))
            self._send(answer)

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(_PARENT_DIED)
            self._inbox.put(message)

    def _send(self, message: protocol.ToParent) -> None:
        try:
            self._connection.send(message)
        except OSError:  # broken pipe or reset
            os._exit(_PARENT_DIED)

    def _answer(self, work: protocol.Work) -> protocol.LastWord:
        """Do the work; whatever goes wrong becomes a message, so that one bad job does not cost the warm models."""
        try:
            return self._workbench.do(work)
        except Interrupted as stopped:
            checkpoint = None if stopped.checkpoint is None else str(stopped.checkpoint)
            return protocol.Stopped(work.request_id, stopped.step, checkpoint)
        except EngineError as error:
            return failed(work, error)
        except Exception as error:
            if is_out_of_memory(error):
                _log.warning("out of memory: %s", error)
                self._models.clear()  # so that another attempt, here too, has all the room there is
                return failed(work, OutOfMemory("the device ran out of memory"))
            _log.exception("unexpected error in %s", work.request_id)
            return protocol.Failed(work.request_id, "internal-error", type(error).__name__, retryable=True)

    def _load(self, model: str) -> BaseModel:
        # bfloat16 keeps float32's range: no loss scaling, no overflow. CPUs are slower with it, so they get float32.
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        base = BaseModel.load(model, device=self._device, dtype=dtype)
        if self._device.type == "cuda":  # as tensor cores read images
            for network in (base.denoiser.unet, base.autoencoder.network, base.autoencoder.decoder):
                network.to(memory_format=torch.channels_last)
        return base


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", 0) if wanted == "cuda" else torch.device(wanted)


def _distillation_processes(wanted: int, device: str) -> int:
    """The most to use: as many as are wanted, or, for 0, one on each GPU unless the child was given a certain one."""
    return wanted or (torch.cuda.device_count() if device in {"auto", "cuda"} else 0) or 1


def _half_of_memory(device: torch.device) -> int:
    """In bytes; the other half is for what is computed."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 2
    return of_machine() // 2


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _gpu(device: torch.device) -> str | None:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="workers.engine")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the supervisor")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per operator")
    parser.add_argument("--batch-size", type=int, default=8, help="most pictures drawn at once")
    parser.add_argument("--model-bytes", type=int, default=0, help="of weights kept loaded; 0: half of the memory")
    parser.add_argument("--compile", action="store_true", help="compile networks for drawing")
    parser.add_argument("--distillation-processes", type=int, default=0, help="at most; 0: one on each GPU")
    parser.add_argument("--safety-checker", help="what judges pictures, as package.module:name")
    parser.add_argument("--safety-threshold", type=float, default=0.8, help="the score from which on one is unsafe")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    silence_loading()
    torch.set_num_threads(options.threads)
    # Signals go to whole groups of processes; when to leave is the supervisor's to say, by Shutdown or end of file.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    device = _device(options.device)
    Child(
        Connection(options.fd),
        device=device,
        batch_size=options.batch_size,
        model_bytes=options.model_bytes or _half_of_memory(device),
        compiled=options.compile,
        distillation_processes=_distillation_processes(options.distillation_processes, options.device),
        guard=Guard(options.safety_checker, threshold=options.safety_threshold),
    ).run()
