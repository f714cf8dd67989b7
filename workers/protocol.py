"""The messages between a GPU worker's supervisor (the parent, torch-free) and its child (the engine).

They travel pickled over one `multiprocessing.connection.Connection` on an inherited socket. Both ends are ours and
run the same code; nothing a customer sends is ever unpickled. The parent sends one piece of work at a time and
answers come in the order given here; ``Stop`` may come at any moment.

    Train      ->  Loading? (Progress | Preview | Checkpoint)*  then one of  TrainingsEnded | Failed
                   of each of its trainings, by its own id:     one of  Trained | Stopped | Failed
    Generate   ->  Loading? Progress*                           then one of  Generated | Stopped | Failed
    DrawPairs  ->  Loading? Progress*                           then one of  PairsDrawn | Stopped | Failed
    Distill    ->  Loading? (Progress | Preview | Checkpoint)*  then one of  Distilled | Stopped | Failed
    each       ->  Warm, just before its last word
    start-up   ->  Ready;   Shutdown -> the child ends;   end of file on either side -> the other ends

``request_id`` is the parent's and is only echoed. The trainings of one `Train` have ids of their own, by which they
report, can be stopped and end. Pictures and outputs are files that both sides can see.
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
class PictureFile:
    """How a picture is written; ``facts`` (JSON values) go into the file's metadata, None leaves them out."""

    format: str = "png"  # or "webp"
    quality: int | None = None  # of a lossy WebP, 1 to 100; None: every pixel is exact
    facts: Mapping[str, object] | None = None


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
    file: PictureFile = PictureFile()
    safety: str = "off"  # "flag": to be judged; "block": and to be withheld if it is unsafe


@dataclass(frozen=True)
class Training:
    """Learn a concept from picture files; ``settings`` override the model's training settings."""

    request_id: str
    pictures: tuple[str, ...]
    superclass: str
    settings: Mapping[str, object]
    seed: int
    resume_from: str | None  # a checkpoint of the same training
    scratch_dir: str  # the child writes checkpoints, previews and the concept here
    start: str | None = None  # a concept file to go on from, in place of the superclass


@dataclass(frozen=True)
class Train:
    """Carry out trainings side by side, all on one model."""

    request_id: str
    model: str  # folder or hub id
    trainings: tuple[Training, ...]


@dataclass(frozen=True)
class Generate:
    """Draw pictures, batched as the child sees fit; with a student's file, by that student of the model."""

    request_id: str
    model: str
    items: tuple[GenerateItem, ...]
    scratch_dir: str  # the child writes the pictures' files here
    student: str | None = None


@dataclass(frozen=True)
class PairsWanted:
    """What a teacher draws for its student: ``count`` pairs in ``steps`` steps each, in so many shards."""

    count: int
    steps: int
    shards: int
    seed: int


@dataclass(frozen=True)
class DrawPairs:
    """Draw one shard of teacher pairs; no prompts stand for the model's own, as in `Distill`."""

    request_id: str
    model: str
    prompts: tuple[str, ...]
    settings: Mapping[str, object]  # of the distillation they are for
    wanted: PairsWanted
    shard: int
    scratch_dir: str  # the child writes the shard here


@dataclass(frozen=True)
class Distill:
    """Distil a student; ``settings`` override the model's distillation settings."""

    request_id: str
    model: str
    prompts: tuple[str, ...]
    settings: Mapping[str, object]
    seed: int
    wanted: PairsWanted | None
    pairs: tuple[str, ...]  # the shards' files, in order
    resume_from: str | None  # a checkpoint of the same distillation
    scratch_dir: str  # the child writes checkpoints, previews and the student here


@dataclass(frozen=True)
class Stop:
    """End this work, or one of a cohort's trainings, at its next step; unknown or finished work is left alone."""

    request_id: str


@dataclass(frozen=True)
class Shutdown:
    """End after the work at hand."""


@dataclass(frozen=True)
class Ready:
    """The child is up and knows its device."""

    device: str  # "cpu", "cuda:0"
    device_name: str
    gpu: str | None = None  # the id that the GPU has in every process


@dataclass(frozen=True)
class Loading:
    """The model was not warm: the work waits for it."""

    request_id: str
    model: str


@dataclass(frozen=True)
class Warm:
    """The models that are now in memory: base models by folder or hub id, students by their teacher's and their file.

    Said before the last word, whatever that is.
    """

    request_id: str
    models: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Progress:
    """One more step done."""

    request_id: str
    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """What the student draws by now, or what a training has learned: a sheet of pictures, as a WebP file.

    Its prompts and noises are always the same.
    """

    request_id: str
    step: int
    path: str


@dataclass(frozen=True)
class Checkpoint:
    """A file that the work can resume from; the parent removes it once it is stored."""

    request_id: str
    step: int
    path: str


@dataclass(frozen=True)
class Trained:
    """The concept file is written; ``gate_bias`` is the recommended one, None where nothing was validated."""

    request_id: str
    path: str
    metrics: Mapping[str, float]
    size_bytes: int
    gate_bias: float | None = None


@dataclass(frozen=True)
class TrainingsEnded:
    """Every training of the cohort has ended, each with its own word."""

    request_id: str


@dataclass(frozen=True)
class Verdict:
    """How sure the safety checker is that a picture is unsafe, from 0 to 1, and whether that is enough."""

    score: float
    unsafe: bool


@dataclass(frozen=True)
class GeneratedImage:
    """One picture, as a file of the format that was asked for, or None where it is withheld."""

    item_id: str
    path: str | None
    width: int
    height: int
    seed: int
    verdict: Verdict | None = None  # None: nobody asked


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
    seconds: Mapping[str, float] = field(default_factory=dict)  # of each part of the work
    parts: tuple[tuple[str, float, float], ...] = ()  # each with the Unix time when it began, and its seconds


@dataclass(frozen=True)
class PairsDrawn:
    """One shard of teacher pairs is written."""

    request_id: str
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Distilled:
    """The student's file is written; it draws at ``timesteps``, one step each."""

    request_id: str
    path: str
    timesteps: tuple[int, ...]
    metrics: Mapping[str, float]
    size_bytes: int


@dataclass(frozen=True)
class Stopped:
    """The work ended because of `Stop`, after ``step`` steps; a training or distillation left a checkpoint."""

    request_id: str
    step: int
    checkpoint_path: str | None


@dataclass(frozen=True)
class Failed:
    """The work as a whole, or one training, failed; ``code`` is stable, ``message`` is for people."""

    request_id: str
    code: str
    message: str
    retryable: bool


Work = Train | Generate | DrawPairs | Distill
ToChild = Work | Stop | Shutdown
LastWord = TrainingsEnded | Generated | PairsDrawn | Distilled | Stopped | Failed
ToParent = Ready | Loading | Warm | Progress | Preview | Checkpoint | Trained | LastWord
