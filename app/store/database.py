"""The database of this process: its connections, and the only COMMIT.

Work is a function of a SQLModel session. It runs as a whole where the connection lives: on SQLite
in the thread of an aiosqlite connection.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlmodel import Session

from app.store.errors import CommitFailed, DatabaseUnusable
from app.store.sqlite import SqliteConnection, sqlite_file

T = TypeVar("T")

WATCH_SECONDS: Final = 0.02
"""How often the commits of other processes are looked for, while anybody listens."""


@dataclass(slots=True, eq=False)
class Database:
    """One connection for writes, opened when it is first needed, and any number for reads."""

    file: Path
    _writing: SqliteConnection | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run a function in one transaction that holds the write lock, and commit it.

        An error in the function rolls everything back. Raises CommitFailed where the COMMIT fails.
        """
        connection = await self._write_connection()
        try:
            return await connection.run(partial(_in_transaction, work))
        except (DBAPIError, CommitFailed):
            # Whatever state it is in, the next unit of work begins on a new one.
            self._writing = None
            await connection.close()
            raise

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a function that reads one state of the database, on a connection opened for it."""
        connection = await self.connect_for_reads()
        try:
            return await connection.run(work)
        finally:
            await connection.close()

    async def connect_for_reads(self) -> SqliteConnection:
        """Open a connection that cannot write. Its transactions begin with the first statement."""
        return await SqliteConnection.open(self.file, begin="BEGIN", is_query_only=True)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        """Yield a function that waits a moment and returns whether anybody has committed since."""
        connection = await self.connect_for_reads()
        try:
            version = await connection.data_version()
            rested_at = time.monotonic()

            async def wait_for_commits() -> bool:
                nonlocal version, rested_at
                # At most a tenth of the time goes into watching, and into what it leads to.
                await asyncio.sleep(max(WATCH_SECONDS, 10 * (time.monotonic() - rested_at)))
                rested_at = time.monotonic()
                before, version = version, await connection.data_version()
                return version != before

            yield wait_for_commits
        finally:
            await connection.close()

    async def truncate_log(self) -> bool:
        """Give the disk space of the write-ahead log back; False where somebody reads it."""
        return await (await self._write_connection()).truncate_log()

    async def close(self) -> None:
        if self._writing:
            await self._writing.close()

    async def _write_connection(self) -> SqliteConnection:
        async with self._lock:
            if self._writing is None:
                self._writing = await SqliteConnection.open(
                    self.file, begin="BEGIN IMMEDIATE", is_query_only=False
                )
            return self._writing


def _in_transaction(work: Callable[[Session], T], session: Session) -> T:
    try:
        session.connection()  # takes the write lock
        result = work(session)
        session.flush()
    except BaseException:
        session.rollback()
        raise
    try:
        session.commit()
    except Exception as error:
        session.rollback()
        raise CommitFailed from error
    return result


def open_database(url: str) -> Database:
    """Return the database of an address; nothing is opened yet. Raises DatabaseUnusable."""
    return Database(sqlite_file(parse_url(url)))


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


def require_openable(url: str) -> None:
    """Raise DatabaseUnusable where the file cannot be opened; one that is missing is made.

    Asked before the first connection: aiosqlite leaves a thread behind where that fails.
    """
    file = sqlite_file(parse_url(url))
    try:
        sqlite3.connect(file).close()
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"Cannot use the database {file}: {error}.") from None
