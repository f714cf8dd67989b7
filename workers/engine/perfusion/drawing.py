"""How a model's concepts are drawn while they train, and what for: the words ``validation`` and ``preview`` of its
``lockstep.json``.
"""

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
_EVERY = 50


@dataclass(frozen=True)
class Drawing:
    """As the model draws by default. ``student`` is a path or hub id; ``steps`` and ``guidance`` hold without one."""

    student: str | None
    steps: int
    guidance: float
    gate_bias: Mapping[str, float]  # by key lock
    gate_temperature: float

    @classmethod
    def of(cls, said: Mapping[str, object], card: Mapping[str, object], folder: Path) -> Drawing:
        """Read what a word of a card says of it, and for the rest the card itself; raises ValueError."""
        defaults = {
            "student": None,
            "steps": card.get("default_steps", _STEPS),
            "guidance": card.get("default_guidance", _GUIDANCE),
            "gate_temperature": card.get("gate_temperature", _GATE_TEMPERATURE),
            "gate_bias": card.get("gate_bias", {}),
        }
        match {**defaults, **said}:
            case {
                "student": str() | None as student,
                "steps": int(steps),
                "guidance": int() | float() as guidance,
                "gate_bias": dict(gate_bias),
                "gate_temperature": int() | float() as gate_temperature,
            } if all(isinstance(bias, int | float) for bias in gate_bias.values()):
                return cls(
                    student=None if student is None else beside(folder, student),
                    steps=steps,
                    guidance=float(guidance),
                    gate_bias={**_GATE_BIAS, **gate_bias},
                    gate_temperature=float(gate_temperature),
                )
            case _:
                raise ValueError


@dataclass(frozen=True)
class ValidationFacts:
    """What scores a concept while it trains: ``clip``, a path or hub id, by pictures that are drawn for that."""

    clip: str
    drawing: Drawing

    @classmethod
    def of(cls, card: Mapping[str, object], folder: Path) -> ValidationFacts | None:
        """Read them from the card of the model in ``folder``, None where it has none; raises ModelUnreadable.

        Relative paths are relative to the folder; what lies nowhere is left to be a hub id.
        """
        said = card.get("validation")
        if said is None:
            return None
        if not isinstance(said, dict) or not isinstance(said.get("clip"), str):
            raise _unclear("validate a training", said)
        return cls(beside(folder, said["clip"]), _drawing(said, card, folder, "validate a training"))


@dataclass(frozen=True)
class PreviewFacts:
    """How often a training shows what it has learned, and in which prompts; None: those that it is validated with."""

    every: int
    prompts: tuple[str, ...] | None
    drawing: Drawing

    @classmethod
    def of(cls, card: Mapping[str, object], folder: Path) -> PreviewFacts | None:
        """Read them as `ValidationFacts` are read."""
        said = card.get("preview")
        if said is None:
            return None
        if not isinstance(said, dict):
            raise _unclear("show a training", said)
        every, prompts = said.get("every", _EVERY), said.get("prompts")
        if not isinstance(every, int) or every < 1 or not (prompts is None or _are_templates(prompts)):
            raise _unclear("show a training", said)
        drawing = _drawing(said, card, folder, "show a training")
        return cls(every, None if prompts is None else tuple(prompts), drawing)


def _are_templates(said: object) -> bool:
    return isinstance(said, list) and bool(said) and all(isinstance(one, str) and one.count("{}") == 1 for one in said)


def _drawing(said: Mapping[str, object], card: Mapping[str, object], folder: Path, to: str) -> Drawing:
    try:
        return Drawing.of(said, card, folder)
    except ValueError:
        raise _unclear(to, said) from None


def _unclear(to: str, said: object) -> ModelUnreadable:
    return ModelUnreadable(f"the model does not say how to {to}: {said!r}")
