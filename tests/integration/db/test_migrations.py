from __future__ import annotations

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import DBAPIError

from core.db import migrations
from core.db.tables import METADATA


def test_the_migrations_make_exactly_the_models(postgres_url):
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert migrations.drift(connection) == []
    engine.dispose()


def test_a_step_back_is_refused_while_there_is_what_came_with_it(new_database):
    url = new_database()
    engine = create_engine(url)
    base = "INSERT INTO models (id, name, kind, family, location, teacher_id, facts) VALUES "
    with engine.begin() as connection:
        connection.exec_driver_sql(base + "('mdl_t', 'teacher', 'base', 'f', 'here', NULL, '{}')")
        connection.exec_driver_sql(base + "('mdl_s', 'student', 'student', 'f', 'here', 'mdl_t', '{}')")
    with pytest.raises(DBAPIError, match="remove them first"):
        migrations.downgrade(url, revision="0002")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM models WHERE id = 'mdl_s'")
    migrations.downgrade(url, revision="0002")
    assert "teacher_id" not in {column["name"] for column in inspect(engine).get_columns("models")}
    engine.dispose()


def test_a_step_back_is_refused_while_there_are_uploaded_concept_files(new_database):
    url = new_database()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO tenants (id, name) VALUES ('ten_1', 'acme')")
        connection.exec_driver_sql(
            "INSERT INTO files (id, tenant_id, purpose, name, key, media_type, size_bytes, sha256, header)"
            " VALUES ('file_1', 'ten_1', 'concept_upload', 'tom', 'k', 'm', 1, 's', '{}')"
        )
    with pytest.raises(DBAPIError, match="remove them first"):
        migrations.downgrade(url, revision="0003")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM files")
    migrations.downgrade(url, revision="0003")
    assert "header" not in {column["name"] for column in inspect(engine).get_columns("files")}
    engine.dispose()


def test_every_step_can_be_undone_and_done_again(new_database):
    url = new_database()
    engine = create_engine(url)
    migrations.downgrade(url, revision="base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrations.upgrade(url)
    assert set(METADATA.tables) < set(inspect(engine).get_table_names())
    engine.dispose()
