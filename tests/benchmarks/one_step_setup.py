"""What the measurements of one-step generation share: which models are measured, how much, and how they draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.engine.dmd.student_model import StudentFacts
from workers.engine.storybook.distilling import RECIPES, STUDENT, make_students, toy
from workers.engine.storybook.drawing import Drawing, draw, draw_in_processes, load_model
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.storybook.judges import Pictures
from workers.engine.storybook.sheet import PROMPTS
from workers.engine.storybook.student_material import Material, Workplace

STEPS = 50
FREE = "free"  # distilled like the student, but for its keys
MADE = Path(".lockstep/storybook/students/students")  # by `python -m workers.engine.storybook student`


def students_in(student: Path, others: Path) -> dict[str, Path]:
    """Return the folders of the key-locked student and of the free one, there or not."""
    return {"student": student, f"{FREE} student": others / FREE}


@dataclass(frozen=True)
class Models:
    """The folders that are measured; `others` holds those of the students that the student is compared with."""

    teacher: Path
    student: Path
    others: Path

    @property
    def students(self) -> dict[str, Path]:
        """Those that are there."""
        folders = students_in(self.student, self.others)
        return {name: folder for name, folder in folders.items() if folder.exists()}


@dataclass(frozen=True)
class Size:
    """How much is measured: `pictures` of each individual, `seeds` of each of the `varied` prompts."""

    steps: int = STEPS
    individuals: int = 8
    concept_steps: int | None = None  # None: as many as the teacher's own settings say
    pictures: int = 12
    prompts: int = 500
    varied: int = 40
    seeds: int = 6
    rounds: int = 7
    ablated: int = 250
    processes: int = 2
    compiled: bool = True


QUICK = Size(
    steps=2,
    individuals=1,
    concept_steps=2,
    pictures=2,
    prompts=8,
    varied=2,
    seeds=2,
    rounds=1,
    ablated=4,
    processes=1,
    compiled=False,
)


def distil_toys(teacher: Path, folder: Path) -> Models:
    """Distil every student of the recipe for a step or two, for a run that only shows the form."""
    material = Material(PROMPTS[:4], pairs=4, shards=1, teacher_steps=2, guidance=GUIDANCE)
    place = Workplace(teacher, folder)
    make_students(place, material, toy(RECIPES))
    return Models(teacher, place.student(STUDENT), folder / "students")


def drawing_of(folder: Path, steps: int, *, first_seed: int) -> Drawing:
    """Return how a model draws: a student in its own steps without guidance, any other in ``steps`` guided ones."""
    student = StudentFacts.of(json.loads((folder / "lockstep.json").read_text()))
    if student is None:
        return Drawing(steps, GUIDANCE, first_seed)
    return Drawing(len(student.timesteps), 1.0, first_seed)


def draw_set(folder: Path, prompts: Sequence[str], size: Size, *, first_seed: int) -> Pictures:
    """Draw one picture per prompt, the k-th from the seed ``first_seed + k`` whichever model draws."""
    how = drawing_of(folder, size.steps, first_seed=first_seed)
    if size.processes == 1:
        return draw(load_model(folder), prompts, how)
    return draw_in_processes(folder, prompts, how, processes=size.processes)
