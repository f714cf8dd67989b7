"""How good a concept is while it trains: drawn from a few prompts, graded by a CLIP pair.

Source: the Perfusion paper keeps, of the concepts of every 25th step, the one with the highest harmonic mean of CLIP-I
and CLIP-T, as its reimplementations report; CLIP-I and CLIP-T are those of `metrics.py`. CLIP-T reads a prompt with
the superclass word in the concept's place, as the pair has never seen the concept.

Prompts and noise stay the same for the whole training, so that its validations differ by the concept alone; and a
validated training learns what it would have learned anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from safetensors import SafetensorError

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.errors import ModelUnreadable
from workers.engine.hub import CLIP_FILES, local_folder
from workers.engine.metrics import ClipGrader, clip_i, clip_t
from workers.engine.perfusion.concept import Concept
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.drawing import ValidationFacts
from workers.engine.perfusion.painter import Painter
from workers.engine.perfusion.standing import Scores


class Examiner:
    """Grades concepts of one base model by pictures of them, for all trainings on it."""

    def __init__(self, base: BaseModel, facts: ValidationFacts) -> None:
        """Open the CLIP pair and the student; raises ModelUnreadable or, for the hub, ModelUnavailable."""
        self.painter = Painter.open(base, facts.drawing)
        self.grader = _grader(facts, base.device)


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
            self._examiner.painter.model.conditioner.encode(self._prompts(concept))

    def scores(self, concept: Concept) -> Scores:
        """Grade a concept at the model's default gate bias; raises Interrupted."""
        return self._scores_at(concept)

    def recommended_bias(self, concept: Concept) -> float:
        """Return which of the settings' gate biases is best for a concept, by the harmonic mean; raises Interrupted."""
        return max(self._config.gate_biases, key=lambda bias: self._scores_at(concept, bias).harmonic_mean)

    def _scores_at(self, concept: Concept, gate_bias: float | None = None) -> Scores:
        drawn = self._examiner.painter.draw(
            self._prompts(concept, gate_bias),
            seed=self._seed,
            batch_size=self._config.batch_size,  # what can be trained in one batch can be drawn in one
            should_stop=self._should_stop,
        )
        features = self._examiner.grader.image_features(drawn)  # (prompts, D)
        return Scores(clip_i(features, self._shown), clip_t(features, self._asked))

    def _prompts(self, concept: Concept, gate_bias: float | None = None) -> list[Prompt]:
        return self._examiner.painter.prompts(
            concept, self._config.key_lock, self._config.validation_prompts, gate_bias
        )


def _grader(facts: ValidationFacts, device: torch.device) -> ClipGrader:
    try:
        return ClipGrader.load(local_folder(facts.clip, CLIP_FILES), device=device)
    except torch.OutOfMemoryError:  # a RuntimeError, and not the folder's fault
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnreadable(f"no CLIP pair to validate with in {facts.clip!r}: {error}") from error
