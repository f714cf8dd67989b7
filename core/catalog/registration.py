"""Registering the deployment's base models and its pool: run at every start, changes nothing twice."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from core.catalog import statements
from core.catalog.facts import read_facts
from core.ids import new_id


def register(session: Session, *, pool: str, locations: Sequence[str]) -> list[str]:
    """Make the pool and the base models known; returns the models' names."""
    session.execute(statements.upsert_pool(pool))
    names = []
    for location in locations:
        facts = read_facts(location)
        session.execute(
            statements.upsert_model(
                model_id=new_id("mdl"),
                name=facts.name,
                family=facts.family,
                location=location,
                facts=facts.model_dump(mode="json"),
            )
        )
        names.append(facts.name)
    return names
