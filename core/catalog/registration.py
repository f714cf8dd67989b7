"""Registering the deployment's models and its pool: run at every start, changes nothing twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from core.catalog import statements
from core.catalog.facts import ModelFacts, read_facts
from core.ids import new_id


class TeacherMissing(Exception):
    """A student is configured without its teacher."""


def register(
    session: Session, *, pool: str, locations: Sequence[str], fetched: Mapping[str, Path] | None = None
) -> list[str]:
    """Make the pool and the models known, teachers before their students; returns the models' names.

    ``fetched`` says where the files of hub ids lie. What cannot be read is registered with what is assumed of any
    model, unless more is known of it from an earlier start. Raises TeacherMissing for a student whose teacher is not
    registered, and ValueError for facts that are none.
    """
    session.execute(statements.upsert_pool(pool))
    names = []
    folders = {location: (fetched or {}).get(location, Path(location)) for location in locations}
    found = [(location, read_facts(location, folder)) for location, folder in folders.items()]
    for location, facts in sorted(found, key=lambda pair: pair[1].student is not None):
        names.append(facts.name)
        if not folders[location].is_dir() and session.scalar(statements.platform_model(facts.name)) is not None:
            continue
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
