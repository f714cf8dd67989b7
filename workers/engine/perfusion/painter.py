"""Draws concepts while they train, as their model would by default: to be graded, and to be looked at.

Pictures are drawn by a student where the model names one, in its own few steps, and otherwise by the model itself.
Nothing here touches a training's own randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.dmd.student_file import load_student
from workers.engine.errors import EngineError, ModelUnreadable, PermanentError
from workers.engine.generation import GenerationRequest, generate
from workers.engine.perfusion.concept import Concept, KeyLock
from workers.engine.perfusion.drawing import Drawing

_NAME = "concept"  # the placeholder inside prompts
_SEEDS = 2**63


@dataclass(frozen=True)
class Painter:
    """A model or its student, with the dial set as its concepts are drawn by default."""

    model: BaseModel
    drawing: Drawing

    @classmethod
    def open(cls, base: BaseModel, drawing: Drawing) -> Painter:
        """Open the student, where one is named; raises ModelUnreadable or, for the hub, ModelUnavailable."""
        return cls(_opened(base, drawing.student), drawing)

    def prompts(
        self, concept: Concept, key_lock: str, templates: Sequence[str], gate_bias: float | None = None
    ) -> list[Prompt]:
        """Put a concept into templates, at the model's default gate bias unless another is given."""
        bias = self.drawing.gate_bias[key_lock] if gate_bias is None else gate_bias
        use = ConceptUse(_NAME, concept, bias, self.drawing.gate_temperature, KeyLock(key_lock))
        return [Prompt(template.format(f"<{_NAME}>"), (use,)) for template in templates]

    def draw(
        self, prompts: Sequence[Prompt], *, seed: int, batch_size: int, should_stop: Callable[[], bool]
    ) -> list[Image.Image]:
        """Draw each prompt, each from noise of its own; raises the first error among them, and Interrupted."""
        student, side = self.model.student, self.model.native_size
        requests = [
            GenerationRequest(
                prompt=prompt.text,
                seed=(seed + place) % _SEEDS,
                steps=self.drawing.steps if student is None else len(student.timesteps),
                guidance=self.drawing.guidance if student is None else 1.0,
                width=side,
                height=side,
                concepts=prompt.concepts,
            )
            for place, prompt in enumerate(prompts)
        ]
        answers = generate(
            self.model, requests, batch_size=batch_size, on_progress=lambda *_: None, should_stop=should_stop
        )
        pictures = []
        for answer in answers:
            if isinstance(answer, EngineError):
                raise answer
            pictures.append(answer)
        return pictures


def _opened(base: BaseModel, named: str | None) -> BaseModel:
    """Open a student, from a model folder or from a student's file; the model itself where none is named."""
    if named is None:
        return base
    try:
        if Path(named).is_file():
            return load_student(Path(named), base)
        student = BaseModel.load(named, device=base.device, dtype=base.denoiser.dtype)
        if student.student is None or _space(student) != _space(base):
            raise ModelUnreadable("it is no student of this model")
    except PermanentError as error:
        raise ModelUnreadable(f"the student {named!r} that {base.name!r} names: {error}") from error
    return student


def _space(model: BaseModel) -> tuple[str, str, tuple[int, ...]]:
    """What must be equal for a concept of one model to mean the same on the other."""
    return model.fingerprint, model.covariance_sha256, model.projections.widths
