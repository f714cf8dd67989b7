"""Write ``constraints.txt``: the installed version of everything that this project's requirements reach.

Run in an environment whose versions were tested: ``make pins``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_PROJECT = Path(__file__).resolve().parents[1]
_HEADER = "# The versions this project was tested with; `make pins` writes this file from what is installed.\n"


def pins() -> dict[str, str]:
    """Name and version of every distribution reached, the project's own packages left out."""
    own, to_visit = _requirements()
    found: dict[str, str] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    while to_visit:
        requirement = to_visit.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in own or (name, extras) in visited:
            continue
        visited.add((name, extras))
        distribution = metadata.distribution(name)
        # The public version alone: a build such as +cpu is this machine's choice.
        found[name] = Version(distribution.version).public
        to_visit += _wanted(map(Requirement, distribution.requires or []), extras)
    return dict(sorted(found.items()))


def _requirements() -> tuple[set[str], list[Requirement]]:
    """The names of this project's distributions, and all that they ask for, extras included."""
    own: set[str] = set()
    asked: list[Requirement] = []
    for file in (_PROJECT / "pyproject.toml", _PROJECT / "sdk" / "pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        own.add(canonicalize_name(project["name"]))
        groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
        asked += [Requirement(line) for group in groups for line in group]
    return own, asked


def _wanted(requirements: Iterator[Requirement], extras: frozenset[str]) -> list[Requirement]:
    """Those that hold on this platform for these extras."""
    environments = [{"extra": extra} for extra in extras or {""}]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments))
    ]


if __name__ == "__main__":
    lines = [f"{name}=={version}\n" for name, version in pins().items()]
    (_PROJECT / "constraints.txt").write_text(_HEADER + "".join(lines))
