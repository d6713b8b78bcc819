"""Engines and sessions: how this process reaches its database, and the only COMMIT.

What differs between the engines is here, and nowhere above.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.activity.values import dump_json

BUSY_TIMEOUT_MS: Final = 5000
"""How long SQLite waits for another process's write before the command is answered BUSY."""

_PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: an acknowledged commit survives a power cut
    "foreign_keys": 1,
    "busy_timeout": BUSY_TIMEOUT_MS,
}


class DatabaseUnusable(Exception):
    """The database cannot be opened; the message is one line for the operator."""


class CommitFailed(Exception):
    """COMMIT itself failed, so whether the work is on disk is not known: never repeat it."""


@dataclass(frozen=True, slots=True)
class Database:
    """One connection for writes, a few for reads that cannot write."""

    write_engine: AsyncEngine
    read_engine: AsyncEngine

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[AsyncSession]:
        """Run the block in one transaction that holds the write lock, and commit it.

        An error in the block rolls everything back. Raises CommitFailed where the COMMIT fails.
        """
        async with AsyncSession(self.write_engine, autoflush=False) as session:
            await session.connection()
            yield session
            await session.flush()
            try:
                await session.commit()
            except Exception as error:
                raise CommitFailed from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """Read one consistent state of the database."""
        async with AsyncSession(self.read_engine, autoflush=False) as session:
            try:
                yield session
            except asyncio.CancelledError:
                await _interrupt(session)
                raise

    async def close(self) -> None:
        await self.read_engine.dispose()
        await self.write_engine.dispose()


def open_database(url: str, *, read_connections: int) -> Database:
    """Make the engines; no connection is opened yet. Raises DatabaseUnusable."""
    address = parse_url(url)
    sqlite_file(address)
    read_engine = _create_engine(address, pool_size=read_connections)
    write_engine = _create_engine(address, pool_size=1)
    _configure_sqlite(read_engine, begin="BEGIN", query_only=1)
    _configure_sqlite(write_engine, begin="BEGIN IMMEDIATE", query_only=0)
    return Database(write_engine, read_engine)


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


def sqlite_file(address: URL) -> Path:
    """Tell the file of a SQLite address. Raises DatabaseUnusable for one in memory."""
    if not address.database or address.database == ":memory:" or "mode" in address.query:
        raise DatabaseUnusable(
            "TICKET_ACTIVITY_DATABASE_URL must name a file: a database in memory keeps nothing."
        )
    return Path(address.database)


def require_openable(url: str) -> None:
    """Raise DatabaseUnusable where the file cannot be opened; one that is missing is made.

    Asked before the first connection: aiosqlite leaves a thread behind where that fails.
    """
    file = sqlite_file(parse_url(url))
    try:
        sqlite3.connect(file).close()
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"Cannot use the database {file}: {error}.") from None


def is_busy(error: DBAPIError) -> bool:
    """Whether the engine refused because another process holds the lock: worth a retry."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _create_engine(address: URL, *, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        address,
        pool_size=pool_size,
        max_overflow=0,
        json_serializer=dump_json,
        json_deserializer=json.loads,
        # The driver opens no transactions of its own: a released savepoint of such a transaction
        # can survive the rollback around it. `begin` below opens them.
        connect_args={"isolation_level": None},
    )


def _configure_sqlite(engine: AsyncEngine, *, begin: str, query_only: int) -> None:
    pragmas = _PRAGMAS | {"query_only": query_only}

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
            cursor.execute(f"PRAGMA {name}")
            _verify(name, value, cursor.fetchone())
        cursor.close()
        # SQLite's own lower() and LIKE fold ASCII only.
        connection.create_function("casefold", 1, _casefold, deterministic=True)

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(begin)


async def _interrupt(session: AsyncSession) -> None:
    """Stop the statement that runs, which a cancelled caller would otherwise wait for."""
    raw = await (await session.connection()).get_raw_connection()
    if raw.driver_connection is not None:
        await raw.driver_connection.interrupt()


def _casefold(text: str | None) -> str | None:
    return text and text.casefold()


def _verify(name: str, expected: object, row: Any) -> None:
    if row is None or row[0] != expected:
        raise DatabaseUnusable(f"SQLite did not take PRAGMA {name} = {expected}.")
