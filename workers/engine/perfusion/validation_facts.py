"""How a model says that trainings on it are validated: the word ``validation`` of its ``lockstep.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.engine.errors import ModelUnreadable
from workers.engine.hub import beside
from workers.engine.perfusion.concept import KeyLock

# What the product assumes, too, of a model that does not say how it is drawn with by default.
_GATE_BIAS: Mapping[str, float] = {KeyLock.LOCAL: 0.7, KeyLock.GLOBAL: 0.5, KeyLock.TRAINED: 0.7}
_GATE_TEMPERATURE, _STEPS, _GUIDANCE = 0.15, 50, 6.0


@dataclass(frozen=True)
class ValidationFacts:
    """What scores a concept while it trains, and how it is drawn for that: as the model draws by default.

    ``clip`` and ``student`` are paths or hub ids; ``steps`` and ``guidance`` hold where no student is named.
    """

    clip: str
    student: str | None
    steps: int
    guidance: float
    gate_bias: Mapping[str, float]  # by key lock
    gate_temperature: float

    @classmethod
    def of(cls, card: Mapping[str, object], folder: Path) -> ValidationFacts | None:
        """Read them from the card of the model in ``folder``, None where it has none; raises ModelUnreadable.

        Relative paths are relative to the folder; what lies nowhere is left to be a hub id.
        """
        said = card.get("validation")
        if said is None:
            return None
        defaults = {
            "student": None,
            "steps": card.get("default_steps", _STEPS),
            "guidance": card.get("default_guidance", _GUIDANCE),
            "gate_temperature": card.get("gate_temperature", _GATE_TEMPERATURE),
            "gate_bias": card.get("gate_bias", {}),
        }
        match {**defaults, **said} if isinstance(said, dict) else said:
            case {
                "clip": str(clip),
                "student": str() | None as student,
                "steps": int(steps),
                "guidance": int() | float() as guidance,
                "gate_bias": dict(gate_bias),
                "gate_temperature": int() | float() as gate_temperature,
            } if all(isinstance(bias, int | float) for bias in gate_bias.values()):
                return cls(
                    clip=beside(folder, clip),
                    student=None if student is None else beside(folder, student),
                    steps=steps,
                    guidance=float(guidance),
                    gate_bias={**_GATE_BIAS, **gate_bias},
                    gate_temperature=float(gate_temperature),
                )
            case _:
                raise ModelUnreadable(f"the model does not say how to validate a training: {said!r}")
