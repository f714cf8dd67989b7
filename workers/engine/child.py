"""The GPU child: a process that owns the models and does one piece of work after another for its supervisor.

    python -m workers.engine.child --fd N [--device auto|cpu|cuda] [--threads 1] [--batch-size 8] [--warm-models 2]

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
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from workers import protocol
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.errors import CheckpointMismatch, EngineError, Interrupted, OutOfMemory, SettingsInvalid
from workers.engine.generation import GenerationRequest, ModelCache, generate
from workers.engine.perfusion.concept import ConceptFile, KeyLock
from workers.engine.perfusion.training import train_concept
from workers.engine.pictures import load_picture

_log = logging.getLogger(__name__)
_PARENT_DIED = 3  # exit status


class Inbox:
    """Work that has arrived, and which of it is to stop."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[protocol.Train | protocol.Generate | protocol.Shutdown] = queue.SimpleQueue()
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
            self._stops[message.request_id] = threading.Event()
        self._messages.put(message)

    def get(self) -> protocol.Train | protocol.Generate | protocol.Shutdown:
        """Wait for the next piece of work."""
        return self._messages.get()

    def should_stop(self, request_id: str) -> bool:
        """Tell whether a `Stop` for this work has come."""
        return self._stops[request_id].is_set()

    def finish(self, request_id: str) -> None:
        """Forget work that has ended."""
        del self._stops[request_id]


class Child:
    """The main loop over one connection."""

    def __init__(self, connection: Connection, *, device: torch.device, batch_size: int, warm_models: int) -> None:
        self._connection = connection
        self._device = device
        self._batch_size = batch_size
        self._inbox = Inbox()
        self._models = ModelCache(self._load, capacity=warm_models)

    def run(self) -> None:
        """Serve until `Shutdown`."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._send(protocol.Ready(str(self._device), _device_name(self._device)))
        while not isinstance(work := self._inbox.get(), protocol.Shutdown):
            answer = self._answer(work)
            # Forgotten before the parent hears of it: from then on the same id may come back as another attempt.
            self._inbox.finish(work.request_id)
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

    def _answer(self, work: protocol.Train | protocol.Generate) -> protocol.ToParent:
        """Do the work; whatever goes wrong becomes a message, so that one bad job does not cost the warm models."""
        try:
            return self._train(work) if isinstance(work, protocol.Train) else self._generate(work)
        except Interrupted as stopped:
            checkpoint = None if stopped.checkpoint is None else str(stopped.checkpoint)
            return protocol.Stopped(work.request_id, stopped.step, checkpoint)
        except EngineError as error:
            return _failed(work, error)
        except (torch.OutOfMemoryError, MemoryError) as error:
            _log.warning("out of memory: %s", error)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return _failed(work, OutOfMemory("the device ran out of memory"))
        except Exception as error:
            _log.exception("unexpected error in %s", work.request_id)
            return protocol.Failed(work.request_id, "internal-error", type(error).__name__, retryable=True)

    def _train(self, work: protocol.Train) -> protocol.Trained:
        started = time.monotonic()
        base = self._model(work)
        scratch = Path(work.scratch_dir)
        config = base.perfusion.override(work.settings)
        train = partial(
            train_concept,
            base,
            [load_picture(Path(path)) for path in work.pictures],
            work.superclass,
            config,
            seed=work.seed,
            checkpoints=scratch,
            on_progress=lambda step, steps, loss: self._send(
                protocol.Progress(work.request_id, step, steps, {"loss": loss})
            ),
            on_checkpoint=lambda step, path: self._send(protocol.Checkpoint(work.request_id, step, str(path))),
            should_stop=lambda: self._inbox.should_stop(work.request_id),
        )
        try:
            file = train(resume_from=None if work.resume_from is None else Path(work.resume_from))
        except CheckpointMismatch as mismatch:  # of another release: the training starts over
            _log.warning("not resumed: %s", mismatch)
            file = train(resume_from=None)
        path = scratch / "concept.safetensors"
        size = file.save(path)
        metrics = {**file.scores, "seconds": round(time.monotonic() - started, 3)}
        return protocol.Trained(work.request_id, str(path), metrics, size)

    def _generate(self, work: protocol.Generate) -> protocol.Generated:
        base = self._model(work)
        failures: list[protocol.ItemFailure] = []
        accepted: list[tuple[protocol.GenerateItem, GenerationRequest]] = []
        for item in work.items:
            try:
                accepted.append((item, _request(base, item)))
            except EngineError as error:
                failures.append(_failure(item, error))
        answers = generate(
            base,
            [request for _, request in accepted],
            batch_size=self._batch_size,
            on_progress=lambda step, steps: self._send(protocol.Progress(work.request_id, step, steps)),
            should_stop=lambda: self._inbox.should_stop(work.request_id),
        )
        outputs: list[protocol.GeneratedImage] = []
        for number, ((item, _), answer) in enumerate(zip(accepted, answers, strict=True)):
            if isinstance(answer, EngineError):
                failures.append(_failure(item, answer))
                continue
            path = Path(work.scratch_dir) / f"image-{number:04d}.png"
            answer.save(path)
            outputs.append(protocol.GeneratedImage(item.item_id, str(path), answer.width, answer.height, item.seed))
        return protocol.Generated(work.request_id, tuple(outputs), tuple(failures))

    def _model(self, work: protocol.Train | protocol.Generate) -> BaseModel:
        if work.model not in self._models:
            self._send(protocol.Loading(work.request_id, work.model))
        return self._models.get(work.model)

    def _load(self, model: str) -> BaseModel:
        # bfloat16 keeps float32's range: no loss scaling, no overflow. CPUs are slower with it, so they get float32.
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        return BaseModel.load(model, device=self._device, dtype=dtype)


def _request(base: BaseModel, item: protocol.GenerateItem) -> GenerationRequest:
    """Open an item's concept files; raises PermanentError."""
    return GenerationRequest(
        prompt=item.prompt,
        negative_prompt=item.negative_prompt,
        seed=item.seed,
        steps=item.steps,
        guidance=item.guidance,
        width=item.width,
        height=item.height,
        concepts=tuple(_concept_use(base, use) for use in item.concepts),
    )


def _concept_use(base: BaseModel, use: protocol.ConceptUse) -> ConceptUse:
    if use.key_lock not in set(KeyLock):
        raise SettingsInvalid(f"key lock {use.key_lock!r} is none of {', '.join(KeyLock)}")
    concept = base.adopt(ConceptFile.load(Path(use.path)))
    return ConceptUse(use.name, concept, use.gate_bias, use.gate_temperature, KeyLock(use.key_lock))


def _failed(work: protocol.Train | protocol.Generate, error: EngineError) -> protocol.Failed:
    return protocol.Failed(work.request_id, error.code, str(error), error.retryable)


def _failure(item: protocol.GenerateItem, error: EngineError) -> protocol.ItemFailure:
    return protocol.ItemFailure(item.item_id, error.code, str(error), error.retryable)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", 0) if wanted == "cuda" else torch.device(wanted)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="workers.engine.child")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the supervisor")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per operator")
    parser.add_argument("--batch-size", type=int, default=8, help="most pictures drawn at once")
    parser.add_argument("--warm-models", type=int, default=2, help="most base models kept loaded")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()  # it warns of attributes that it wrote into the folder itself
    torch.set_num_threads(options.threads)
    # Signals go to whole groups of processes; when to leave is the supervisor's to say, by Shutdown or end of file.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    device = _device(options.device)
    Child(Connection(options.fd), device=device, batch_size=options.batch_size, warm_models=options.warm_models).run()


if __name__ == "__main__":
    main()
