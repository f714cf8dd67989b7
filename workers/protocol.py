"""The messages between a GPU worker's supervisor (the parent, torch-free) and its child (the engine).

They travel pickled over one `multiprocessing.connection.Connection` on an inherited socket. Both ends are ours and
run the same code; nothing a customer sends is ever unpickled. The parent sends one piece of work at a time and
answers come in the order given here; ``Stop`` may come at any moment.

    Train     ->  Loading? Progress* Checkpoint*  then one of  Trained | Stopped | Failed
    Generate  ->  Loading? Progress*              then one of  Generated | Stopped | Failed
    start-up  ->  Ready;   Shutdown -> the child ends;   end of file on either side -> the other ends

``request_id`` is the parent's and is only echoed. Pictures and outputs are files that both sides can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConceptUse:
    """A concept file under the name that a prompt gives it, with the dial settings for this use."""

    name: str
    path: str
    gate_bias: float
    gate_temperature: float
    key_lock: str  # "local" or "global"


@dataclass(frozen=True)
class GenerateItem:
    """One picture to draw; width and height in pixels."""

    item_id: str
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    concepts: tuple[ConceptUse, ...] = ()


@dataclass(frozen=True)
class Train:
    """Learn a concept from picture files; ``settings`` override the model's training settings."""

    request_id: str
    model: str  # folder or hub id
    pictures: tuple[str, ...]
    superclass: str
    concept_name: str
    settings: Mapping[str, object]
    seed: int
    resume_from: str | None  # a checkpoint of the same training
    scratch_dir: str  # the child writes checkpoints and the concept here


@dataclass(frozen=True)
class Generate:
    """Draw pictures, batched as the child sees fit."""

    request_id: str
    model: str
    items: tuple[GenerateItem, ...]
    scratch_dir: str  # the child writes PNG files here


@dataclass(frozen=True)
class Stop:
    """End this work at its next step boundary; unknown or finished work is left alone."""

    request_id: str


@dataclass(frozen=True)
class Shutdown:
    """End after the work at hand."""


@dataclass(frozen=True)
class Ready:
    """The child is up and knows its device."""

    device: str  # "cpu", "cuda:0"
    device_name: str


@dataclass(frozen=True)
class Loading:
    """The model was not warm: the work waits for it."""

    request_id: str
    model: str


@dataclass(frozen=True)
class Progress:
    """One more step done."""

    request_id: str
    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A file that the training can resume from; the child keeps it until the work ends."""

    request_id: str
    step: int
    path: str


@dataclass(frozen=True)
class Trained:
    """The concept file is written."""

    request_id: str
    path: str
    metrics: Mapping[str, float]
    size_bytes: int


@dataclass(frozen=True)
class GeneratedImage:
    """One picture, as a PNG file."""

    item_id: str
    path: str
    width: int
    height: int
    seed: int


@dataclass(frozen=True)
class ItemFailure:
    """One item that could not be drawn; the others of its request could."""

    item_id: str
    code: str
    message: str
    retryable: bool


@dataclass(frozen=True)
class Generated:
    """Every item has either its picture or its failure."""

    request_id: str
    outputs: tuple[GeneratedImage, ...]
    failures: tuple[ItemFailure, ...]


@dataclass(frozen=True)
class Stopped:
    """The work ended because of `Stop`, after ``step`` steps; a training left a checkpoint."""

    request_id: str
    step: int
    checkpoint_path: str | None


@dataclass(frozen=True)
class Failed:
    """The work as a whole failed; ``code`` is stable, ``message`` is for people."""

    request_id: str
    code: str
    message: str
    retryable: bool


Work = Train | Generate
ToChild = Train | Generate | Stop | Shutdown
ToParent = Ready | Loading | Progress | Checkpoint | Trained | Generated | Stopped | Failed
