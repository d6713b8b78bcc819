"""The migrations make the tables that the models describe, and take them away again."""

from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlmodel import SQLModel

from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import alembic_config, migrate
from app.store.migration_lock import LOCK
from tests.support.engines import Engine


async def on_database(url: str, look: Callable[[Connection], Any]) -> Any:
    database = open_database(url)
    result = await database.write(lambda session: look(session.connection()))
    await database.close()
    return result


def differences(connection: Connection) -> Any:
    opts = {"compare_type": True, "include_name": lambda name, *_: name != LOCK.name}
    context = MigrationContext.configure(connection, opts=opts)
    return compare_metadata(context, SQLModel.metadata)


async def test_migrations_leave_nothing_to_generate(settings: Settings) -> None:
    assert await on_database(settings.database_url, differences) == []


@pytest.mark.sqlite
async def test_timelines_are_stored_in_the_order_of_their_keys(settings: Settings) -> None:
    def definitions(connection: Connection) -> list[str]:
        rows = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"
        )
        return [row[0] for row in rows]

    found = await on_database(settings.database_url, definitions)

    assert len(found) == 9
    assert all(definition.strip().endswith("WITHOUT ROWID") for definition in found)


async def test_migrating_again_changes_nothing(settings: Settings) -> None:
    database = open_database(settings.database_url)
    await migrate(database)
    await database.close()

    assert await on_database(settings.database_url, differences) == []


async def test_downgrading_takes_everything_away(settings: Settings) -> None:
    await on_database(
        settings.database_url,
        lambda connection: command.downgrade(alembic_config(connection), "base"),
    )

    names = await on_database(
        settings.database_url, lambda connection: inspect(connection).get_table_names()
    )
    assert set(names) - {LOCK.name} == {"alembic_version"}


async def test_a_migration_that_fails_leaves_no_trace(engine: Engine) -> None:
    url = engine.new_database(is_migrated=False)
    await on_database(
        url,
        lambda connection: connection.exec_driver_sql("CREATE TABLE ticket_activity (x INTEGER)"),
    )
    database = open_database(url)

    try:
        await migrate(database)
    except Exception as error:  # noqa: BLE001, RUF100
        assert "already exists" in str(error)  # noqa: PT017
    await database.close()

    names = await on_database(url, lambda connection: inspect(connection).get_table_names())
    assert set(names) - {LOCK.name} == {"ticket_activity"}
    engine.drop(url)
