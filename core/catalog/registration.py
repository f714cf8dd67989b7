"""Registering the deployment's models and its pool: run at every start, changes nothing twice."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from core.catalog import statements
from core.catalog.facts import ModelFacts, read_facts
from core.ids import new_id


class TeacherMissing(Exception):
    """A student is configured without its teacher."""


def register(session: Session, *, pool: str, locations: Sequence[str]) -> list[str]:
    """Make the pool and the models known, teachers before their students; returns the models' names.

    Raises TeacherMissing for a student whose teacher is not registered.
    """
    session.execute(statements.upsert_pool(pool))
    names = []
    found = [(location, read_facts(location)) for location in locations]
    for location, facts in sorted(found, key=lambda pair: pair[1].student is not None):
        session.execute(
            statements.upsert_model(
                model_id=new_id("mdl"),
                name=facts.name,
                family=facts.family,
                location=location,
                facts=facts.model_dump(mode="json"),
                teacher_id=_teacher_id(session, facts),
            )
        )
        names.append(facts.name)
    return names


def _teacher_id(session: Session, facts: ModelFacts) -> str | None:
    if facts.student is None:
        return None
    teacher = session.scalar(statements.platform_model(facts.student.teacher))
    if teacher is None:
        raise TeacherMissing(
            f"{facts.name!r} is a student of {facts.student.teacher!r}, which is not among the models."
        )
    return teacher.id
