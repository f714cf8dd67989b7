from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.demo import table
from infra.demo.judge import Verdict
from infra.demo.table import Timings, Webhooks

WEBHOOKS = Webhooks(sent=40, verified=40, duplicates=0, rejected=(), missing=frozenset())
GOOD, POOR = Verdict(right=20, pictures=24), Verdict(right=4, pictures=24)


def problems(webhooks: Webhooks = WEBHOOKS, concept: Verdict = GOOD, caption: Verdict = POOR) -> list[str]:
    return table.problems(webhooks, concept, caption)


def test_a_demo_that_worked_has_no_problems():
    assert problems() == []


def test_a_rejected_webhook_is_a_problem():
    found = problems(
        Webhooks(sent=40, verified=39, duplicates=0, rejected=("No matching signature",), missing=frozenset())
    )
    assert found == ["a webhook was rejected: No matching signature"]


def test_a_missing_webhook_is_a_problem():
    found = problems(Webhooks(sent=40, verified=39, duplicates=0, rejected=(), missing=frozenset({"evt_1"})))
    assert found == ["webhooks that did not arrive: 1"]


def test_a_duplicate_is_no_problem():
    assert problems(Webhooks(sent=40, verified=40, duplicates=3, rejected=(), missing=frozenset())) == []


@pytest.mark.parametrize(("concept", "caption", "count"), [(12, 6, 0), (11, 6, 1), (5, 0, 0), (4, 0, 1)])
def test_the_concept_must_be_known_twice_as_often_as_the_words_and_as_chance(concept: int, caption: int, count: int):
    assert len(problems(concept=Verdict(concept, 24), caption=Verdict(caption, 24))) == count


def test_the_table_tells_every_figure():
    text = io.StringIO()
    timings = Timings(upload=0.4, queue_wait=1.2, training=95.0, generation=84.0, pictures=56, total=182.0)
    Console(file=text, width=100).print(table.figures(timings, 5120, WEBHOOKS, GOOD, POOR))
    for figure in (
        "0.4 s",
        "1.2 s",
        "95.0 s",
        "(1.50 s each)",
        "5,120 bytes",
        "20 of 24 (83%)",
        "4 of 24 (17%)",
        "10%",
    ):
        assert figure in text.getvalue()


def test_a_concept_of_stable_diffusion_1_5_is_counted_under_100_kilobytes():
    text = io.StringIO()
    timings = Timings(upload=0, queue_wait=0, training=0, generation=0, pictures=1, total=0)
    Console(file=text, width=100).print(table.figures(timings, 5120, WEBHOOKS, GOOD, POOR))
    assert "29,568 bytes" in text.getvalue()
