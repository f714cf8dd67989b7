"""Every error the engine raises on purpose.

    EngineError
    ├── PermanentError     the input is wrong: the same attempt fails again
    │   ├── ModelUnreadable, ModelUnsupported, CovarianceMissing, StudentMismatch
    │   ├── ConceptUnreadable, ConceptBaseMismatch, ConceptsTooSimilar
    │   ├── PromptTooLong, PlaceholderUnknown, PlaceholderAmbiguous, ConceptUnused, SuperclassInvalid
    │   ├── PictureUnreadable, PicturesInvalid, SizeUnsupported, SettingsInvalid
    │   └── CheckpointMismatch, TrainingDiverged, TeacherPairsInvalid
    └── TransientError     the surroundings failed: worth another attempt
        └── OutOfMemory, ModelUnavailable, ProcessesLost, SafetyCheckerUnavailable
    Interrupted            not an error: the caller asked for a stop and got one

``code`` is stable: it travels over the pipe, into the job's row and out through the API.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class EngineError(Exception):
    """The engine could not do what was asked."""

    code: ClassVar[str]
    retryable: ClassVar[bool]


class PermanentError(EngineError):
    """The input is at fault; trying again changes nothing."""

    retryable = False


class TransientError(EngineError):
    """The surroundings are at fault; another attempt may succeed."""

    retryable = True


class ModelUnreadable(PermanentError):
    """The base model's files are missing, damaged or not safetensors."""

    code = "model-unreadable"


class ModelUnsupported(PermanentError):
    """The base model is of a family this engine does not serve."""

    code = "model-unsupported"


class CovarianceMissing(PermanentError):
    """The base model has no covariance, so concepts can be neither learned nor used on it."""

    code = "covariance-missing"


class StudentMismatch(PermanentError):
    """The student was distilled from another model than the one that is to serve it."""

    code = "student-mismatch"


class ConceptUnreadable(PermanentError):
    """The concept file is damaged, not a concept file, or of an unknown format version."""

    code = "concept-unreadable"


class ConceptBaseMismatch(PermanentError):
    """The concept was learned on a text encoder, covariance or layer list other than this base model's."""

    code = "concept-base-mismatch"


class ConceptsTooSimilar(PermanentError):
    """Two concepts of one prompt are nearly parallel, so no projection can tell them apart."""

    code = "concepts-too-similar"


class PromptTooLong(PermanentError):
    """The prompt has more tokens than the text encoder reads."""

    code = "prompt-too-long"


class PlaceholderUnknown(PermanentError):
    """The prompt names a concept that the request does not bring along."""

    code = "placeholder-unknown"


class PlaceholderAmbiguous(PermanentError):
    """Two concepts of one request go by the same name."""

    code = "placeholder-ambiguous"


class ConceptUnused(PermanentError):
    """The request brings a concept along that its prompt never names."""

    code = "concept-unused"


class SuperclassInvalid(PermanentError):
    """The superclass is empty or not a plain word or two."""

    code = "superclass-invalid"


class PictureUnreadable(PermanentError):
    """A picture is no image, is truncated, or is larger than allowed."""

    code = "picture-unreadable"


class PicturesInvalid(PermanentError):
    """The number of pictures, or of masks for them, is wrong."""

    code = "pictures-invalid"


class SizeUnsupported(PermanentError):
    """The base model cannot draw pictures of this size."""

    code = "size-unsupported"


class SettingsInvalid(PermanentError):
    """A setting is unknown, of the wrong type or out of range."""

    code = "settings-invalid"


class CheckpointMismatch(PermanentError):
    """The checkpoint belongs to another training, or is damaged."""

    code = "checkpoint-mismatch"


class TrainingDiverged(PermanentError):
    """The loss or a parameter stopped being finite; the same seed and settings would diverge again."""

    code = "training-diverged"


class TeacherPairsInvalid(PermanentError):
    """Teacher pairs are missing, damaged, or drawn by another model or plan."""

    code = "teacher-pairs-invalid"


class OutOfMemory(TransientError):
    """The device had too little memory for this piece of work."""

    code = "out-of-memory"


class ModelUnavailable(TransientError):
    """The hub that holds the base model could not be reached."""

    code = "model-unavailable"


class ProcessesLost(TransientError):
    """One of several processes that worked together died, and so the others were ended."""

    code = "processes-lost"


class SafetyCheckerUnavailable(TransientError):
    """A picture is to be judged before anybody sees it, and cannot be."""

    code = "safety-checker-unavailable"


class Interrupted(Exception):
    """Work ended at a step boundary because ``should_stop`` said so; ``checkpoint`` resumes a training."""

    def __init__(self, step: int, checkpoint: Path | None = None) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step
        self.checkpoint = checkpoint
