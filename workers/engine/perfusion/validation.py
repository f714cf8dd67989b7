"""How good a concept is while it trains: drawn from a few prompts, graded by a CLIP pair.

Source: the Perfusion paper keeps, of the concepts of every 25th step, the one with the highest harmonic mean of CLIP-I
and CLIP-T, as its reimplementations report; CLIP-I and CLIP-T are those of `metrics.py`. CLIP-T reads a prompt with
the superclass word in the concept's place, as the pair has never seen the concept.

Prompts and noise stay the same for the whole training, so that its validations differ by the concept alone. Pictures
are drawn by a student where the model names one, in its own few steps, and otherwise by the model itself. Nothing
here touches the training's own randomness: a validated training learns what it would have learned anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.dmd.student_file import load_student
from workers.engine.errors import EngineError, ModelUnreadable, PermanentError
from workers.engine.generation import GenerationRequest, generate
from workers.engine.hub import CLIP_FILES, local_folder
from workers.engine.metrics import ClipGrader, clip_i, clip_t
from workers.engine.perfusion.concept import Concept, KeyLock
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.standing import Scores
from workers.engine.perfusion.validation_facts import ValidationFacts

_NAME = "concept"  # the placeholder inside validation prompts
_SEEDS = 2**63


class Examiner:
    """Draws concepts of one base model and grades the pictures, for all trainings on it."""

    def __init__(self, base: BaseModel, facts: ValidationFacts) -> None:
        """Open the CLIP pair and the student; raises ModelUnreadable or, for the hub, ModelUnavailable."""
        self.facts = facts
        self.painter = _painter(base, facts)
        self.grader = _grader(facts, base.device)

    def draw(
        self, prompts: Sequence[Prompt], *, seed: int, batch_size: int, should_stop: Callable[[], bool]
    ) -> list[Image.Image]:
        """Draw each prompt, each from noise of its own; raises the first error among them, and Interrupted."""
        student, side = self.painter.student, self.painter.native_size
        requests = [
            GenerationRequest(
                prompt=prompt.text,
                seed=(seed + place) % _SEEDS,
                steps=self.facts.steps if student is None else len(student.timesteps),
                guidance=self.facts.guidance if student is None else 1.0,
                width=side,
                height=side,
                concepts=prompt.concepts,
            )
            for place, prompt in enumerate(prompts)
        ]
        answers = generate(
            self.painter, requests, batch_size=batch_size, on_progress=lambda *_: None, should_stop=should_stop
        )
        pictures = []
        for answer in answers:
            if isinstance(answer, EngineError):
                raise answer
            pictures.append(answer)
        return pictures


class Validation:
    """One training's validation: its own pictures, prompts and noise before the model's examiner."""

    def __init__(
        self,
        examiner: Examiner,
        pictures: Sequence[Image.Image],
        superclass: str,
        config: PerfusionConfig,
        *,
        seed: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._examiner = examiner
        self._config = config
        self._seed = seed
        self._should_stop = should_stop
        self._shown = examiner.grader.image_features(pictures)  # (n, D)
        self._asked = examiner.grader.text_features([text.format(superclass) for text in config.validation_prompts])

    def require(self, concept: Concept) -> None:
        """Raise what any of the prompts would be refused for."""
        with torch.no_grad():
            self._examiner.painter.conditioner.encode(self._prompts(concept, gate_bias=0.0))

    def scores(self, concept: Concept) -> Scores:
        """Grade a concept at the model's default gate bias; raises Interrupted."""
        return self._scores_at(concept, self._examiner.facts.gate_bias[self._config.key_lock])

    def recommended_bias(self, concept: Concept) -> float:
        """Return which of the settings' gate biases is best for a concept, by the harmonic mean; raises Interrupted."""
        return max(self._config.gate_biases, key=lambda bias: self._scores_at(concept, bias).harmonic_mean)

    def _scores_at(self, concept: Concept, gate_bias: float) -> Scores:
        drawn = self._examiner.draw(
            self._prompts(concept, gate_bias),
            seed=self._seed,
            batch_size=self._config.batch_size,  # what can be trained in one batch can be drawn in one
            should_stop=self._should_stop,
        )
        features = self._examiner.grader.image_features(drawn)  # (prompts, D)
        return Scores(clip_i(features, self._shown), clip_t(features, self._asked))

    def _prompts(self, concept: Concept, gate_bias: float) -> list[Prompt]:
        temperature, key_lock = self._examiner.facts.gate_temperature, KeyLock(self._config.key_lock)
        use = ConceptUse(_NAME, concept, gate_bias, temperature, key_lock)
        return [Prompt(text.format(f"<{_NAME}>"), (use,)) for text in self._config.validation_prompts]


def _painter(base: BaseModel, facts: ValidationFacts) -> BaseModel:
    """Open the student, from a model folder or from a student's file; the model itself where none is named."""
    if facts.student is None:
        return base
    try:
        if Path(facts.student).is_file():
            return load_student(Path(facts.student), base)
        student = BaseModel.load(facts.student, device=base.device, dtype=base.denoiser.dtype)
        if student.student is None or _space(student) != _space(base):
            raise ModelUnreadable("it is no student of this model")
    except PermanentError as error:
        raise ModelUnreadable(f"the student {facts.student!r} that {base.name!r} names: {error}") from error
    return student


def _space(model: BaseModel) -> tuple[str, str, tuple[int, ...]]:
    """What must be equal for a concept of one model to mean the same on the other."""
    return model.fingerprint, model.covariance_sha256, model.projections.widths


def _grader(facts: ValidationFacts, device: torch.device) -> ClipGrader:
    try:
        return ClipGrader.load(local_folder(facts.clip, CLIP_FILES), device=device)
    except torch.OutOfMemoryError:  # a RuntimeError, and not the folder's fault
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnreadable(f"no CLIP pair to validate with in {facts.clip!r}: {error}") from error
