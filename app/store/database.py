"""Opens the database that an address names, on the engine it names."""

from importlib import import_module
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from app.store.engine import Database
from app.store.errors import DatabaseUnusable
from app.store.postgresql_options import PostgresqlOptions
from app.store.sqlite import SqliteDatabase, sqlite_file

SQLITE: Final = "sqlite+aiosqlite"
POSTGRESQL: Final = "postgresql+asyncpg"


def open_database(url: str, options: PostgresqlOptions | None = None) -> Database:
    """Return the database of an address; nothing is opened yet. Raises DatabaseUnusable."""
    address = parse_url(url)
    if address.drivername == SQLITE:
        return SqliteDatabase(sqlite_file(address))
    try:
        # Imported only where it is needed: its driver is an optional extra of the package.
        postgresql = import_module("app.store.postgresql")
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise DatabaseUnusable(
            "PostgreSQL needs the extra: pip install 'ticket-activity[postgresql]'."
        ) from None
    database: Database = postgresql.open_postgresql(url, options or PostgresqlOptions())
    return database


def parse_url(url: str) -> URL:
    """Read a database address. Raises DatabaseUnusable with a message that holds no password."""
    try:
        address = make_url(url)
        address.get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise DatabaseUnusable(
            "TICKET_ACTIVITY_DATABASE_URL is not an address of a database this service speaks, "
            "such as sqlite+aiosqlite:///data/ticket-activity.db or "
            "postgresql+asyncpg://user:password@host/database."
        ) from error
    if address.drivername not in {SQLITE, POSTGRESQL}:
        raise DatabaseUnusable(
            f"TICKET_ACTIVITY_DATABASE_URL must begin with {SQLITE}:// or {POSTGRESQL}://; "
            f"it begins with {address.drivername}://."
        )
    return address


def shown_address(url: str) -> str:
    """Return the address to show to an operator: without the password, the file in full."""
    address = parse_url(url)
    if address.drivername == SQLITE:
        address = address.set(database=str(sqlite_file(address)))
    return address.render_as_string(hide_password=True)
