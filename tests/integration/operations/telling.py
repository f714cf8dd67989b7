"""What a deployment tells operators, gathered from its API, its metrics and its pages, in the words of the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx
from prometheus_client.parser import text_string_to_metric_families

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metrics(client: httpx.Client) -> Metrics:
    """Every sample by its name and labels."""
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@dataclass
class Page(HTMLParser):
    """The figures and tables of a page, as text."""

    figures: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    _told: list[str] = field(default_factory=list)
    _term: str = ""
    _table: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def read(cls, response: httpx.Response) -> Page:
        assert response.status_code == 200, response.text
        page = cls()
        page.feed(response.text)
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        match tag:
            case "div" if (label := dict(attrs).get("aria-label")) is not None:
                self._table = label
                self.tables[label] = []
            case "tr" if self._table:
                self.tables[self._table].append([])
            case "dt" | "dd" | "td" | "th":
                self._told = []

    def handle_endtag(self, tag: str) -> None:
        told = " ".join(" ".join(self._told).split())
        match tag:
            case "dt":
                self._term = told
            case "dd":
                self.figures[self._term] = told
            case "td":
                self.tables[self._table][-1].append(told)

    def handle_data(self, data: str) -> None:
        self._told.append(data)

    def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's body."""
        return [row for row in self.tables.get(table, []) if row]
