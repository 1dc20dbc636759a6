"""The history of the schema leads to the tables of today, and is run where needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from att_server.adapters import migrations, sqlite_database
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.state_schema import META, METADATA, SCHEMA_VERSION, VERSION, make_schema
from tests.contract.test_state_store import all_events, event


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    """A connection to an empty database in memory."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as made:
        yield made
    engine.dispose()


def content(connection: sa.Connection) -> tuple[object, ...]:
    """The tables and indexes, and the rows that a new database has."""
    inspector = sa.inspect(connection)
    shape = [
        (
            table,
            [(kept["name"], str(kept["type"])) for kept in inspector.get_columns(table)],
            [kept["nullable"] for kept in inspector.get_columns(table)],
            inspector.get_pk_constraint(table),
            sorted((kept["name"], kept["column_names"]) for kept in inspector.get_indexes(table)),
        )
        for table in sorted(inspector.get_table_names())
    ]
    numbers = connection.execute(sa.select(META).order_by(META.c.name)).all()
    return shape, numbers, connection.execute(sa.select(VERSION)).all()


def test_all_migrations_lead_to_the_tables_of_a_new_database(connection: sa.Connection) -> None:
    migrations.upgrade(connection)
    migrated = content(connection)
    assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    METADATA.drop_all(connection)
    make_schema(connection)
    assert content(connection) == migrated


def test_migrating_again_changes_nothing(connection: sa.Connection) -> None:
    migrations.upgrade(connection)
    before = content(connection)
    migrations.upgrade(connection)
    assert content(connection) == before


def test_the_newest_migration_has_the_number_of_the_schema(connection: sa.Connection) -> None:
    migrations.upgrade(connection)
    assert connection.execute(sa.select(VERSION)).scalar_one() == f"{SCHEMA_VERSION:04}"


async def test_an_older_file_is_migrated_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "att.db"
    store = await SqliteStateStore.open(path)
    await store.append_events(event("kept"))
    await store.aclose()

    def upgrade(connection: sa.Connection) -> None:
        connection.execute(sa.update(VERSION).values(version_num=f"{SCHEMA_VERSION + 1:04}"))

    monkeypatch.setattr(sqlite_database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(migrations, "upgrade", upgrade)
    store = await SqliteStateStore.open(path)
    assert [kept.event_type for kept in await all_events(store)] == ["kept"]
    await store.aclose()
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        version = connection.execute(sa.select(VERSION)).scalar_one()
    connection.engine.dispose()
    assert int(version) == SCHEMA_VERSION + 1
