from __future__ import annotations

from sqlalchemy import create_engine, inspect

from core.db import migrations
from core.db.tables import METADATA


def test_the_migrations_make_exactly_the_models(postgres_url):
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert migrations.drift(connection) == []
    engine.dispose()


def test_every_step_can_be_undone_and_done_again(new_database):
    url = new_database()
    engine = create_engine(url)
    migrations.downgrade(url, revision="base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrations.upgrade(url)
    assert set(METADATA.tables) < set(inspect(engine).get_table_names())
    engine.dispose()
