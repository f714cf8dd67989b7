"""Models in memory, bounded by the bytes of their weights."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from workers.engine import attention
from workers.engine.base_model import BaseModel
from workers.engine.errors import ModelUnreadable
from workers.engine.generation import GenerationRequest, draw_in_batches
from workers.engine.memory import bytes_of
from workers.engine.model_cache import ModelCache
from workers.engine.warm import WarmModel


def copied(base: BaseModel) -> BaseModel:
    """The same model with a U-Net and projections of its own."""
    keys, values = base.projections.keys.clone(), base.projections.values.clone()
    unet = type(base.denoiser.unet).from_config(base.denoiser.unet.config)
    projections = replace(base.projections, keys=keys, values=values)
    attention.install(unet, projections)
    return replace(
        base,
        projections=projections,
        denoiser=type(base.denoiser)(unet, base.denoiser.schedule),
    )


class Loads:
    """A cache whose loads are noted; every model is one teacher's, and so shares all but its U-Net."""

    def __init__(self, teacher: BaseModel, *, models: float) -> None:
        self.teacher = teacher
        own = bytes_of([teacher, copied(teacher)]) - bytes_of([teacher])
        shared = bytes_of([teacher]) - own
        self.seen: list[str] = []
        self.cache = ModelCache(self.load, self.load_student, most_bytes=int(shared + models * own))

    def load(self, name: str) -> BaseModel:
        self.seen.append(name)
        return copied(self.teacher)

    def load_student(self, path: str, _teacher: BaseModel) -> BaseModel:
        self.seen.append(path)
        return copied(self.teacher)


def test_students_count_only_what_they_do_not_share(tiny: BaseModel) -> None:
    own = bytes_of([tiny, copied(tiny)]) - bytes_of([tiny])
    assert 0 < own < bytes_of([tiny])
    assert bytes_of([tiny, tiny]) == bytes_of([tiny])
    assert own == sum(p.nbytes for p in tiny.denoiser.unet.parameters()) + 2 * tiny.projections.keys.nbytes


def test_the_least_recently_used_model_goes_first(tiny: BaseModel) -> None:
    loads = Loads(tiny, models=2.5)
    for name in ("a", "b", "a", "c", "a", "b"):
        loads.cache.get(name)
    assert loads.seen == ["a", "b", "c", "b"]
    assert ("c", None) not in loads.cache


def test_a_use_of_a_student_is_one_of_its_teacher(tiny: BaseModel) -> None:
    loads = Loads(tiny, models=3.5)
    for name, student in (("a", "s"), ("b", None), ("a", "s"), ("a", "t"), ("a", "s"), ("a", None)):
        loads.cache.get(name, student)
    assert loads.seen == ["a", "s", "b", "t"]
    assert ("b", None) not in loads.cache


def test_the_one_in_use_stays_however_large_it_is(tiny: BaseModel) -> None:
    loads = Loads(tiny, models=0)
    assert loads.cache.get("a", "s") is loads.cache.get("a", "s")
    assert loads.seen == ["a", "s"]
    assert ("a", None) not in loads.cache
    loads.cache.get("b")
    assert ("a", "s") not in loads.cache


def test_a_model_comes_back_with_empty_caches_once_it_was_dropped(tiny: BaseModel) -> None:
    loads = Loads(tiny, models=0)
    first = loads.cache.get("a")
    assert isinstance(first, WarmModel)
    loads.cache.get("b")
    assert loads.cache.get("a") is not first


def test_a_student_that_cannot_be_loaded_leaves_its_teacher_warm(tiny: BaseModel) -> None:
    def refuse(_path: str, _teacher: BaseModel) -> BaseModel:
        raise ModelUnreadable("broken")

    cache = ModelCache(lambda _name: tiny, refuse, most_bytes=1 << 30)
    with pytest.raises(ModelUnreadable):
        cache.get("a", "s")
    assert ("a", None) in cache
    assert ("a", "s") not in cache


def test_where_memory_does_not_hold_two_the_others_make_room(tiny: BaseModel) -> None:
    asked: list[str] = []

    def load(name: str) -> BaseModel:
        asked.append(name)
        if name == "large" and ("small", None) in cache:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiny

    cache = ModelCache(load, lambda _path, teacher: teacher, most_bytes=1 << 40)
    cache.get("small")
    cache.get("large")
    assert asked == ["small", "large", "large"]
    assert ("small", None) not in cache


def test_what_does_not_fit_alone_is_an_error_and_not_tried_for_ever(tiny: BaseModel) -> None:
    def load(_name: str) -> BaseModel:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cache = ModelCache(load, lambda _path, teacher: teacher, most_bytes=1 << 40)
    with pytest.raises(torch.OutOfMemoryError):
        cache.get("large")


def test_what_was_compiled_lets_its_weights_go_with_the_model(tiny: BaseModel) -> None:
    cache = ModelCache(lambda _name: copied(tiny), lambda _path, teacher: teacher, most_bytes=0, backend="eager")
    request = GenerationRequest("a red cat", seed=1, steps=1, guidance=1.0, width=16, height=16)
    warm = cache.get("a")
    list(draw_in_batches(warm, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False))
    held = weakref.ref(next(warm.base.denoiser.unet.parameters()))
    del warm
    cache.get("b")
    gc.collect()
    assert held() is None


def test_all_can_be_dropped_at_once(tiny: BaseModel) -> None:
    loads = Loads(tiny, models=9)
    loads.cache.get("a", "s")
    loads.cache.clear()
    assert loads.cache.warm == ()
