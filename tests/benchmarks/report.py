"""The form every benchmark reports in: tables for people, one JSON document for machines, and what was aimed at.

    {"figures": {name: value}, "baseline": {name: value}, "targets": [{figure, op, target, value, met}]}

A baseline is measured in the same run and goes by the name of the figure that it stands beside.
"""

from __future__ import annotations

import argparse
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

Op = Literal["<=", ">="]
_COMPARE: Final[dict[Op, Callable[[float, float], bool]]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Target:
    """A figure, what was aimed at and what was measured."""

    figure: str
    op: Op
    target: float
    value: float

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of the target."""
        return _COMPARE[self.op](self.value, self.target)

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'}  {self.figure} {self.op} {self.target:g}: {self.value:.4g}"


@dataclass
class Report:
    """Figures as they come in, each printed with its table and kept for the JSON document."""

    figures: dict[str, float] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)

    def add(self, figure: str, value: float, *, baseline: float | None = None) -> None:
        """Note a figure and what it stands beside; raises ValueError if there is one of that name."""
        if figure in self.figures:
            raise ValueError(f"{figure} was measured twice")
        self.figures[figure] = value
        if baseline is not None:
            self.baseline[figure] = baseline

    def expect(self, figure: str, op: Op, target: float) -> None:
        """Note what a figure should be; raises KeyError for one that was not measured."""
        self.targets.append(Target(figure, op, target, self.figures[figure]))

    def as_json(self) -> dict[str, object]:
        """Return the document."""
        targets = [{**asdict(target), "met": target.met} for target in self.targets]
        return {"figures": self.figures, "baseline": self.baseline, "targets": targets}

    def finish(self, path: Path | None) -> None:
        """Print every target, met or not, and write the document if a place for it was given."""
        print("\nTargets")
        for target in self.targets:
            print(f"  {target}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | float | int]]) -> None:
    """Print a table: words to the left, numbers to the right, fractions with three digits."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    print(f"\n{title}")
    for k, line in enumerate([list(columns), *cells]):
        aligned = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print(f"  {'  '.join(aligned)}".rstrip())
        if k == 0:
            print(f"  {'  '.join('-' * width for width in widths)}")


def argument_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all benchmarks share, for a benchmark to add its own."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, baseline and targets here")
    parser.add_argument("--quick", action="store_true", help="a short run that shows the form, not the figures")
    return parser
