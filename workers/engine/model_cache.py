"""The models in memory, of a bound in bytes, least recently used out."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from workers.engine.base_model import BaseModel
from workers.engine.compiling import forget
from workers.engine.memory import bytes_of, is_out_of_memory, release
from workers.engine.warm import WarmModel

_log = logging.getLogger(__name__)

Named = tuple[str, str | None]
"""A base model by its folder or hub id; a student by its teacher's and its own file."""


class ModelCache:
    """Warm models of at most ``most_bytes`` of weights together, but always the one in use.

    A student shares what its teacher holds, and so a use of it is one of its teacher too.
    """

    def __init__(
        self,
        load: Callable[[str], BaseModel],
        load_student: Callable[[str, BaseModel], BaseModel],
        *,
        most_bytes: int,
        backend: str | None = None,
    ) -> None:
        self._load = load
        self._load_student = load_student
        self._most = most_bytes
        self._backend = backend
        self._models: OrderedDict[Named, WarmModel] = OrderedDict()

    def __contains__(self, named: Named) -> bool:
        return named in self._models

    @property
    def warm(self) -> tuple[Named, ...]:
        """What is in memory, least recently used first."""
        return tuple(self._models)

    def get(self, model: str, student: str | None = None) -> WarmModel:
        """Return the model, or that student of it, loading what is not warm; raises what loading does."""
        named = (model, student)
        is_new = named not in self._models
        if is_new:
            teacher = None if student is None else self.get(model).base
            self._models[named] = WarmModel(self._loaded(model, student, teacher), self._backend)
        for used in ((model, None), named):
            if used in self._models:
                self._models.move_to_end(used)
        if is_new:
            self._shrink()
        return self._models[named]

    def clear(self) -> None:
        """Drop every model."""
        for named in self.warm:
            self._drop(named)

    def _loaded(self, model: str, student: str | None, teacher: BaseModel | None) -> BaseModel:
        """Load, beside the others where memory allows, and alone where it does not."""

        def load() -> BaseModel:
            return self._load(model) if student is None or teacher is None else self._load_student(student, teacher)

        try:
            return load()
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) and self._models):
                raise
            _log.warning("no room for %s beside %d others", model, len(self._models))
        self.clear()
        return load()

    def _shrink(self) -> None:
        while len(self._models) > 1 and bytes_of(warm.base for warm in self._models.values()) > self._most:
            self._drop(self.warm[0])

    def _drop(self, named: Named) -> None:
        device = self._models.pop(named).base.device
        if self._backend is not None:
            forget()
        release(device)
