"""What any method makes of a base model and some pictures, in the one form that all are drawn and compared in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.storybook.drawing import draw_requests
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.storybook.judges import Pictures

FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Personalised:
    """A model that knows an individual, and the words that mean it in a prompt, with their article.

    ``bytes`` are those of the numbers that have to be kept of it beside the base model, in float16; ``file`` holds
    them where a student can draw the individual too.
    """

    base: BaseModel
    thing: str
    bytes: int
    uses: tuple[ConceptUse, ...] = ()
    file: ConceptFile | None = None

    def dialled(self, gate_bias: float | None = None, gate_temperature: float | None = None) -> Personalised:
        """Return it with other settings of Perfusion's gate."""
        uses = [
            replace(
                use,
                gate_bias=use.gate_bias if gate_bias is None else gate_bias,
                gate_temperature=use.gate_temperature if gate_temperature is None else gate_temperature,
            )
            for use in self.uses
        ]
        return replace(self, uses=tuple(uses))

    def draw(self, wordings: Sequence[str], *, first_seed: int, steps: int) -> Pictures:
        """Draw each wording with the individual in it, the k-th from the seed ``first_seed + k``."""
        side, student = self.base.native_size, self.base.student
        how = (steps, GUIDANCE) if student is None else (len(student.timesteps), 1.0)
        return draw_requests(
            self.base,
            [
                GenerationRequest(wording.format(self.thing), first_seed + k, *how, side, side, concepts=self.uses)
                for k, wording in enumerate(wordings)
            ],
        )
