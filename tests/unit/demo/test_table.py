from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.demo import table
from infra.demo.judge import Verdict
from infra.demo.table import Timings, Verdicts, Webhooks

WEBHOOKS = Webhooks(sent=40, verified=40, duplicates=0, rejected=(), missing=frozenset())
GOOD, POOR = Verdict(right=20, pictures=24), Verdict(right=4, pictures=24)


def problems(webhooks: Webhooks = WEBHOOKS, concept: Verdict = GOOD, caption: Verdict = POOR) -> list[str]:
    return table.problems(webhooks, Verdicts(concept, caption, student=None))


def printed(*, student_picture: float | None, student: Verdict | None) -> str:
    text = io.StringIO()
    timings = Timings(
        upload=0.4,
        queue_wait=1.2,
        training=95.0,
        generation=84.0,
        pictures=56,
        teacher_picture=1.25,
        student_picture=student_picture,
        total=182.0,
    )
    Console(file=text, width=100).print(table.figures(timings, 5120, WEBHOOKS, Verdicts(GOOD, POOR, student)))
    return text.getvalue()


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
    text = printed(student_picture=0.025, student=Verdict(15, 24))
    for figure in (
        "0.4 s",
        "1.2 s",
        "95.0 s",
        "(1.50 s each)",
        "1.250 s",
        "0.025 s (50 times faster)",
        "5,120 bytes",
        "20 of 24 (83%)",
        "15 of 24 (62%)",
        "4 of 24 (17%)",
        "10%",
    ):
        assert figure in text


def test_without_a_student_nothing_is_said_of_one():
    assert "one step" not in printed(student_picture=None, student=None)


def test_a_concept_of_stable_diffusion_1_5_is_counted_under_100_kilobytes():
    assert "29,568 bytes" in printed(student_picture=None, student=None)
