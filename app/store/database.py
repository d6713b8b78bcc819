"""Engines and sessions: how this process reaches its database, and the only COMMIT.

What differs between the engines is here, and nowhere above.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.activity.values import dump_json
from app.errors import Busy

BUSY_TIMEOUT_MS: Final = 5000
"""How long SQLite waits for another process's write before the command is answered BUSY."""

POOL_TIMEOUT_SECONDS: Final = 5
"""How long a read waits for a connection before it is answered BUSY."""

WATCH_SECONDS: Final = 0.02
"""How often the commits of other processes are looked for, while anybody listens."""

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
    """One connection for writes, a few for reads that cannot write, one that watches."""

    write_engine: AsyncEngine
    read_engine: AsyncEngine
    watch_engine: AsyncEngine

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
        """Read one consistent state of the database: that of the `one_state` around it, if any."""
        shared = _shared.get()
        if shared and not shared.is_over:
            async with shared.lock, _reading(shared.session):
                yield shared.session
        else:
            async with (
                AsyncSession(self.read_engine, autoflush=False) as session,
                _reading(session),
            ):
                yield session

    @asynccontextmanager
    async def one_state(self) -> AsyncIterator[None]:
        """Let every read of this task, and of the tasks it starts, see the same state.

        They share a connection and take turns; one that outlives the block gets its own.
        """
        async with AsyncSession(self.read_engine, autoflush=False) as session:
            shared = _SharedSession(session)
            token = _shared.set(shared)
            try:
                yield
            finally:
                _shared.reset(token)
                async with shared.lock:
                    shared.is_over = True

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        """Yield a function that waits a moment and tells whether anybody has committed since.

        SQLite counts the commits of others in a number that costs no lock to read. This is the
        place of LISTEN on an engine that has it.
        """
        # In autocommit: inside a transaction the counter would stand still.
        engine = self.watch_engine
        async with engine.connect() as connection:
            version = await _data_version(connection)
            rested_at = time.monotonic()

            async def has_changed() -> bool:
                nonlocal version, rested_at
                # At most a tenth of the time goes into watching, and into what it leads to.
                await asyncio.sleep(max(WATCH_SECONDS, 10 * (time.monotonic() - rested_at)))
                rested_at = time.monotonic()
                before, version = version, await _data_version(connection)
                return version != before

            yield has_changed

    async def close(self) -> None:
        await self.watch_engine.dispose()
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
    watch_engine = _create_engine(address, pool_size=1)
    _configure_sqlite(watch_engine, begin=None, query_only=1)
    return Database(write_engine, read_engine, watch_engine)


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
        pool_timeout=POOL_TIMEOUT_SECONDS,
        json_serializer=dump_json,
        json_deserializer=json.loads,
        # The driver opens no transactions of its own: a released savepoint of such a transaction
        # can survive the rollback around it. `begin` below opens them.
        connect_args={"isolation_level": None},
    )


def _configure_sqlite(engine: AsyncEngine, *, begin: str | None, query_only: int) -> None:
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
        if begin:
            connection.exec_driver_sql(begin)


@dataclass(slots=True, eq=False)
class _SharedSession:
    session: AsyncSession
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_over: bool = False


_shared: ContextVar[_SharedSession | None] = ContextVar("shared_session", default=None)


async def _data_version(connection: AsyncConnection) -> int:
    return int((await connection.exec_driver_sql("PRAGMA data_version")).scalar_one())


@asynccontextmanager
async def _reading(session: AsyncSession) -> AsyncIterator[None]:
    """Give the session its connection; stop what runs on it when the caller is cancelled."""
    try:
        connection = await session.connection()
    except PoolTimeout:
        raise Busy("All connections for reads are taken; send the request again.") from None
    try:
        yield
    except asyncio.CancelledError:
        await _interrupt(connection)
        raise


async def _interrupt(connection: AsyncConnection) -> None:
    """Stop the statement that runs, which a cancelled caller would otherwise wait for."""
    raw = await connection.get_raw_connection()
    if raw.driver_connection is not None:
        await raw.driver_connection.interrupt()


def _casefold(text: str | None) -> str | None:
    return text and text.casefold()


def _verify(name: str, expected: object, row: Any) -> None:
    if row is None or row[0] != expected:
        raise DatabaseUnusable(f"SQLite did not take PRAGMA {name} = {expected}.")
