"""Migrates a database to the tables of this release, and refuses one of a newer release."""

from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlmodel import Session

from app.store.engine import Database
from app.store.errors import DatabaseUnusable

COPY_PROGRESS: Final = "copy_progress"
"""A table of this name is in a database that is an unfinished copy of another one."""

_MIGRATIONS: Final = Path(__file__).parent.parent / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


async def migrate(database: Database) -> None:
    """Run the migrations that are missing, all in one transaction.

    Raises DatabaseUnusable where the database was migrated by newer code.
    """
    if not await database.read(is_current):
        await database.migrate(_upgrade)


async def require_current(database: Database) -> None:
    """Raise DatabaseUnusable where migrations are missing, or come from newer code."""
    await database.read(_require_current)


async def require_whole(database: Database) -> None:
    """Raise DatabaseUnusable for an unfinished copy of another database."""
    if await database.read(_is_unfinished_copy):
        raise DatabaseUnusable(
            "The database is an unfinished copy: run `ticket-activity copy` again to finish it."
        )


def _is_unfinished_copy(session: Session) -> bool:
    return inspect(session.connection()).has_table(COPY_PROGRESS)


def is_current(session: Session) -> bool:
    """Return whether the database has the tables of this release."""
    return _revisions(session.connection()) == {newest_revision()}


def _require_current(session: Session) -> None:
    if not is_current(session):
        script = ScriptDirectory.from_config(alembic_config())
        _require_known_revision(session.connection(), script)
        raise DatabaseUnusable(
            "The database is behind this code; `ticket-activity migrate` brings it up to date."
        )


@cache
def newest_revision() -> str | None:
    """Return the migration that makes the tables of this release."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def _upgrade(connection: Connection) -> None:
    config = alembic_config(connection)
    _require_known_revision(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def require_known_revisions(revisions: set[Any]) -> None:
    """Raise DatabaseUnusable for a revision of newer code."""
    _require_known(revisions, ScriptDirectory.from_config(alembic_config()))


def _require_known_revision(connection: Connection, script: ScriptDirectory) -> None:
    _require_known(_revisions(connection), script)


def _require_known(revisions: set[Any], script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if unknown := revisions - known:
        raise DatabaseUnusable(
            f"The database is newer than this code: it is at migration {', '.join(unknown)}, "
            f"and the last one here is {script.get_current_head()}. Run the newer release."
        )


def _revisions(connection: Connection) -> set[Any]:
    if not inspect(connection).has_table("alembic_version"):
        return set()
    return set(connection.scalars(text("SELECT version_num FROM alembic_version")))
