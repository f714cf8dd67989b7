"""Where results lie: a JSON file for each cell, in a folder named by all that the figures in it depend on.

    FOLDER/<digest>/measured.json                     what the digest is of
    FOLDER/<digest>/<cell>.json                       a cell's figures, drawn by the teacher
    FOLDER/<digest>/<cell>.safetensors                its concept, where students draw it too
    FOLDER/<digest>/students/<digest>/<cell>.json     the figures of what a student drew

So a run that was stopped goes on where it was, nothing is taken for what it is not, and another student is measured
without training anything again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.perfusion.cell import Cell, Size
from tests.benchmarks.perfusion.methods import FACTS, MODELS, TEACHER
from workers.engine.perfusion.config import PerfusionConfig

VERSION: Final = 1
"""Of the benchmark: to be raised whenever the same cell would come out differently."""

JUDGES: Final = MODELS / "storybook-judges"
GRADER: Final = MODELS / "storybook-grader"
SCORES: Final = ("identity", "CLIP-I", "attributes", "CLIP-T")
Result = dict[str, Any]

_NOT_WEIGHTS: Final = ("lockstep.json", "record.json", "README.md", "sheet.png")
_OF_THE_CARD: Final = ("gate_bias", "gate_temperature", "guidance_interval", "segmenter", "validation")


@dataclass(frozen=True)
class Store:
    """The results of one way to measure; ``students`` are folders by name, of which some may not be there yet."""

    folder: Path
    students: Mapping[str, Path]

    @classmethod
    def open(cls, results: Path, students: Mapping[str, Path], size: Size) -> Store:
        """Return the place of what is measured now."""
        told = json.dumps(measured_with(size), indent=1, sort_keys=True)
        folder = results / hashlib.sha256(told.encode()).hexdigest()[:16]
        _write(folder / "measured.json", told)
        return cls(folder, students)

    @cached_property
    def student_folders(self) -> dict[str, Path]:
        """Where the results of each student lie that is there."""
        present = {name: folder for name, folder in self.students.items() if folder.exists()}
        return {name: self.folder / "students" / _digest_of_student(folder) for name, folder in present.items()}

    def find(self, cell: Cell) -> Result | None:
        """Return all that is known of a cell; None unless it is drawn by the teacher and by every student."""
        result = self.find_by_teacher(cell)
        if result is None or not cell.is_for_students:
            return result
        for name in self.student_folders:
            scores = nothing() if result["diverged"] else self.find_by_student(cell, name)
            if scores is None:
                return None
            result["scores"][name] = scores
        return result

    def find_by_teacher(self, cell: Cell) -> Result | None:
        """Return what the cell's own file holds; None where it or the concept that belongs to it is missing."""
        found = _read(self._file(cell))
        lost = found is not None and cell.keeps_concept and not found["diverged"] and not self.concept(cell).exists()
        return None if lost else found

    def find_by_student(self, cell: Cell, name: str) -> dict[str, float] | None:
        """Return the scores of what a student drew."""
        return _read(self.student_folders[name] / f"{cell.key}.json")

    def keep(self, cell: Cell, result: Result) -> None:
        """Write the cell's own file."""
        _write(self._file(cell), json.dumps(result, indent=1))

    def keep_by_student(self, cell: Cell, name: str, scores: Mapping[str, float]) -> None:
        """Write the scores of what a student drew."""
        _write(self.student_folders[name] / f"{cell.key}.json", json.dumps(scores, indent=1))

    def concept(self, cell: Cell) -> Path:
        """Return where the cell's concept lies."""
        return self.folder / f"{cell.key}.safetensors"

    def _file(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.json"


def nothing() -> dict[str, float]:
    """Return the scores of a training that diverged."""
    return dict.fromkeys(SCORES, 0.0)


def measured_with(size: Size) -> dict[str, object]:
    """Return all that a result depends on beside its cell and the code, whose version stands for it."""
    card = json.loads((TEACHER / "lockstep.json").read_text())
    return {
        "version": VERSION,
        "size": dict(size.of_a_cell),
        "teacher": _digest(TEACHER),
        "judges": _digest(JUDGES),
        "grader": _digest(GRADER),
        "perfusion": asdict(PerfusionConfig().override(FACTS.perfusion)),
        "card": {name: card[name] for name in _OF_THE_CARD if name in card},
    }


def _digest(folder: Path) -> str:
    """Hash a folder's files, but for what is only told of a model; settings of its card count one by one."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _NOT_WEIGHTS):
        digest.update(f"{path.relative_to(folder)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _digest_of_student(folder: Path) -> str:
    """Hash what is a student's own: its U-Net, and how it draws."""
    student = json.loads((folder / "lockstep.json").read_text())["student"]
    return hashlib.sha256(f"{_digest(folder / 'unet')} {student['timesteps']}".encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(text + "\n")
    draft.replace(path)
