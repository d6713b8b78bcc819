"""Opens the database that an address names, on its engine."""

import sqlite3

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from app.store.engine import Database
from app.store.errors import DatabaseUnusable
from app.store.sqlite import SqliteDatabase, sqlite_file


def open_database(url: str) -> Database:
    """Return the database of an address; nothing is opened yet. Raises DatabaseUnusable."""
    return SqliteDatabase(sqlite_file(parse_url(url)))


def parse_url(url: str) -> URL:
    """Read a database address. Raises DatabaseUnusable with a message that holds no password."""
    try:
        address = make_url(url)
        address.get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise DatabaseUnusable(
            "TICKET_ACTIVITY_DATABASE_URL is not an address of a database this service speaks, "
            "such as sqlite+aiosqlite:///data/ticket-activity.db."
        ) from error
    if address.drivername != "sqlite+aiosqlite":
        raise DatabaseUnusable(
            "TICKET_ACTIVITY_DATABASE_URL must begin with sqlite+aiosqlite://; "
            f"it begins with {address.drivername}://."
        )
    return address


def shown_address(url: str) -> str:
    """Return the address to show to an operator: without the password, the file in full."""
    address = parse_url(url)
    file = sqlite_file(address).absolute()
    return address.set(database=str(file)).render_as_string(hide_password=True)


def require_openable(url: str) -> None:
    """Raise DatabaseUnusable where the file cannot be opened; one that is missing is made.

    Asked before the first connection: aiosqlite leaves a thread behind where that fails.
    """
    file = sqlite_file(parse_url(url))
    try:
        sqlite3.connect(file).close()
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"Cannot use the database {file}: {error}.") from None
