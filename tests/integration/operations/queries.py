"""What the queries of dashboards and alerts ask for: metrics, and labels of theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from tests.architecture.source import ROOT

DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
RULES = ROOT / "infra" / "prometheus" / "rules.yml"
_VARIABLES = {"$__rate_interval": "5m", "$pool": "gpu"}


@dataclass(frozen=True)
class Query:
    """One query, where it stands, and the labels by which its answers are told."""

    place: str
    text: str
    told_by: frozenset[str]

    def parsed(self) -> Any:
        """Its tree; raises ValueError for what Prometheus would refuse."""
        text = self.text
        for name, value in _VARIABLES.items():
            text = text.replace(name, value)
        return promql_parser.parse(text)

    def selectors(self) -> dict[str, set[str]]:
        """Each metric with the labels that it is chosen by."""
        found: dict[str, set[str]] = {}
        for node in _nodes(self.parsed()):
            if isinstance(node, promql_parser.VectorSelector):
                matchers = node.matchers.matchers
                found.setdefault(str(node.name), set()).update(matcher.name for matcher in matchers)
        return found

    def grouped_by(self) -> set[str]:
        """The labels that its parts are added up or matched by."""
        words = re.findall(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)", self.text)
        return {label.strip() for group in words for label in group.split(",") if label.strip()}


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        below = getattr(node, name, None)
        if below is not None:
            yield from _nodes(below)
    for argument in getattr(node, "args", None) or ():
        yield from _nodes(argument)


def queries() -> list[Query]:
    """Every query that is handed out."""
    return [*_of_dashboards(), *_of_rules()]


def _of_dashboards() -> Iterator[Query]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                labels = frozenset(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
                yield Query(f"{path.name}: {panel['title']}", target["expr"], labels)


def _of_rules() -> Iterator[Query]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            labels = frozenset(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
            yield Query(f"{RULES.name}: {rule['alert']}", rule["expr"], labels)
