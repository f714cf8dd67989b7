"""One of several processes that carry out a distillation: ``python -m workers.engine.dmd.rank TASK`` in a group."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.dmd.group import Seat
from workers.engine.dmd.order import Checkpoint, Failed, Preview, Progress, Stopped, Task, carry_out_share
from workers.engine.errors import EngineError, Interrupted, OutOfMemory
from workers.engine.quiet import silence_loading


class Accelerated:
    """The processes of a group, which exchange tensors by gloo on CPUs and NCCL on GPUs."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self._accelerator = accelerator

    def mean(self, tensor: Tensor, /) -> Tensor:
        """Return the average of every process's tensor, where this one's is."""
        average: Tensor = self._accelerator.reduce(tensor.to(self._accelerator.device), "mean")
        return average.to(tensor.device)


def main() -> None:
    """Do this process's part, and tell the starter of it where this is the first process."""
    seat, task = Seat(), Seat.task(Path(sys.argv[1]))
    assert isinstance(task, Task)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    silence_loading()
    torch.set_num_threads(1)
    try:
        _work(seat, task)
    except EngineError as error:
        seat.send(Failed(error))
        sys.exit(1)
    except (torch.OutOfMemoryError, MemoryError):
        seat.send(Failed(OutOfMemory("a device ran out of memory")))
        sys.exit(1)


def _work(seat: Seat, task: Task) -> None:
    accelerator = Accelerator(cpu=task.device == "cpu")
    processes = Accelerated(accelerator)
    leads = processes.rank == 0
    try:
        done: object = carry_out_share(
            task.order,
            BaseModel.load(task.order.model, device=accelerator.device, dtype=task.dtype),
            processes,
            on_progress=lambda *told: seat.send(Progress(*told)) if leads else None,
            on_preview=lambda *told: seat.send(Preview(*told)),
            on_checkpoint=lambda *told: seat.send(Checkpoint(*told)),
            should_stop=lambda: leads and seat.stop_asked(),
        )
    except Interrupted as stopped:
        done = Stopped(stopped.step, stopped.checkpoint)
    if leads:
        seat.send(done)
    accelerator.end_training()


if __name__ == "__main__":
    main()
