"""An engine that says what a test tells it to, and waits for nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from workers.attempt import Patience
from workers.gpu_child import GpuChild


class ScriptedChild(GpuChild):
    """The engine's end of the pipe: ``script`` says what is answered to a request."""

    def __init__(self, script: Callable[[Any], list[Any]]) -> None:
        super().__init__(device="cpu")
        self.script = script
        self.killed = 0
        self._is_up = False
        self._answers: deque[Any] = deque()

    @property
    def pid(self) -> int | None:
        return 1 if self._is_up else None

    def ensure_running(self) -> None:
        self.device_name = "script"
        self._is_up = True

    def send(self, message: Any) -> None:
        self._answers.extend(self.script(message))

    def receive(self, seconds: float) -> Any:
        answer = self._answers.popleft() if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        self.killed += 1
        self._is_up = False
        self._answers.clear()


IMPATIENT = Patience(working=0.5, loading=0.5, stopping=0.5, giving_way=0.5)
