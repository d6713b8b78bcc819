"""SQLite through aiosqlite, whose thread runs whole functions of a SQLModel session.

Each await on a cursor of aiosqlite is a change to its thread and back, about 0.1 ms. A function
that runs there needs one, however many statements it executes.
"""

import asyncio
import logging
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import aiosqlite
from sqlalchemy import URL, Connection, StaticPool, Uuid, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.activity.listing import holds_words
from app.json_text import dump_json, load_json
from app.store.courtesy import Courtesy
from app.store.engine import WaitForCommits, run_in_transaction
from app.store.errors import CommitFailed, DatabaseUnusable

T = TypeVar("T")

_log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS: Final = 5000
"""How long SQLite waits for the write of another process, before BUSY."""

WATCH_SECONDS: Final = 0.02
"""Time between two looks for commits of other processes, while there are subscribers."""

WAL_LIMIT_BYTES: Final = 32 * 1024 * 1024
"""SQLite truncates the write-ahead log to this size after a checkpoint."""

COMPACT_BYTES: Final = 64 * 1024 * 1024
"""Largest file that is written anew while the service runs. 220 MB took 4.8 s on a busy machine."""

_STEPS: Final = 20_000
"""Instructions of SQLite's virtual machine between two calls of `should_stop`: under 1 ms."""

_PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: an acknowledged commit survives a power cut
    "foreign_keys": 1,
    "secure_delete": 1,  # what is deleted is overwritten; see `SqliteDatabase.erase`
    "busy_timeout": BUSY_TIMEOUT_MS,
    "journal_size_limit": WAL_LIMIT_BYTES,
}


@lru_cache(maxsize=8192)
def _uuid(text: str | None) -> UUID | None:
    """Read an id. Those of actors and tickets come again and again."""
    return None if text is None else UUID(text)


class _QuickUuid(Uuid[UUID]):
    """Ids as SQLite stores them: 32 hexadecimal digits. To read one takes a microsecond."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:  # noqa: ARG002
        return _uuid


class SqliteConnection:
    """One connection with its thread and its session. `begin` opens each of its transactions."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver
        self._session: Session
        self._should_stop: Callable[[], bool] | None = None
        self.search_limit = 0
        self._searched = 0
        self._courtesy = Courtesy()

    @classmethod
    async def open(cls, file: Path, *, begin: str, is_query_only: bool) -> "SqliteConnection":
        """Open the file. Raises DatabaseUnusable."""
        # The driver opens no transactions of its own: a released savepoint of such a transaction
        # can survive the rollback around it. `begin` opens them.
        driver = await aiosqlite.connect(file, isolation_level=None)
        connection = cls(driver)
        try:
            await connection._in_thread(connection._prepare, begin, is_query_only)
        except BaseException as error:
            await driver.close()
            if isinstance(error, sqlite3.Error):
                raise DatabaseUnusable(f"Cannot use the database {file}: {error}.") from None
            raise
        return connection

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run a function of the session on the connection's thread.

        It runs to its end even if the caller is cancelled.
        """
        return await self._in_thread(lambda: work(self._session))

    def stop_when(self, should_stop: Callable[[], bool] | None) -> None:
        """From within `run`: interrupt a statement when `should_stop` is true."""
        self._should_stop = should_stop

    def allow_search(self, characters: int) -> None:
        """Set how many characters text searches may read. A statement that reads more is ended."""
        self.search_limit, self._searched = characters, 0
        self._courtesy.begin()

    @property
    def is_search_exhausted(self) -> bool:
        return self._searched > self.search_limit

    def time_spent(self) -> float:
        """Return the processor time of the thread; elapsed time would include waiting for it."""
        return time.thread_time()

    def resume(self, session: Session) -> None:
        """Do nothing: on SQLite a failed statement leaves the snapshot usable."""

    async def truncate_log(self) -> bool:
        """Copy the write-ahead log into the database and cut it off; False if somebody reads it."""
        return await self._in_thread(self._truncate_log)

    async def erase(self, max_bytes: int) -> bool:
        """As `SqliteDatabase.erase`, but only the log is truncated if the file is larger."""
        return await self._in_thread(self._erase, max_bytes)

    async def data_version(self) -> int:
        """Return a number that changes when another connection has committed.

        It takes no lock. The connection must not be in a transaction: the number is constant there.
        """
        return await self._in_thread(self._data_version)

    async def close(self) -> None:
        """Close the connection, also if it is broken. What is not committed is rolled back."""
        try:
            await self._in_thread(self._session.close)
        except Exception as error:
            _log.warning("A connection was broken.", exc_info=error)
        finally:
            await self._close_driver()

    async def _close_driver(self) -> None:
        try:
            await self._driver.close()
        except Exception as error:
            _log.warning("A connection could not be closed.", exc_info=error)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        # aiosqlite has no public name for it.
        result: T = await self._driver._execute(function, *arguments)  # type: ignore[no-untyped-call]
        return result

    def _prepare(self, begin: str, is_query_only: bool) -> None:  # noqa: FBT001, RUF100
        raw = self._driver._conn
        for name, value in (_PRAGMAS | {"query_only": int(is_query_only)}).items():
            raw.execute(f"PRAGMA {name} = {value}").close()
            _verify(name, value, raw.execute(f"PRAGMA {name}").fetchone())
        # SQLite's own lower() and LIKE fold ASCII only.
        raw.create_function("holds_words", 2, self._holds_words, deterministic=True)
        raw.set_progress_handler(self._is_to_stop, _STEPS)
        engine = create_engine(
            "sqlite://",
            creator=lambda: raw,
            poolclass=StaticPool,
            json_serializer=dump_json,
            json_deserializer=load_json,
            hide_parameters=True,  # messages of users must not get into logs
        )
        engine.dialect.colspecs = {**engine.dialect.colspecs, Uuid: _QuickUuid}
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        self._session = Session(engine, autoflush=False)

    def _holds_words(self, message: str | None, words: str) -> bool:
        """Whether a message holds every word; ends the statement where it must read no more."""
        if message is None:
            return False
        self._searched += len(message)
        # One long message can take too long for the progress handler, which runs between messages.
        if self.is_search_exhausted or self._is_to_stop():
            self._driver._conn.interrupt()
            return False
        return _holds_words(message, words)

    def _is_to_stop(self) -> bool:
        if self.search_limit:  # it is lent to a long read
            self._courtesy.rest()
        return self._should_stop is not None and self._should_stop()

    def _truncate_log(self) -> bool:
        raw = self._driver._conn
        raw.execute("PRAGMA busy_timeout = 0").close()
        try:
            [is_busy, *_] = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").close()
        return not is_busy

    def _erase(self, max_bytes: int) -> bool:
        raw = self._driver._conn
        if _pragma(raw, "user_version") == _Erasure.NONE:
            return True
        if _pragma(raw, "user_version") == _Erasure.MARKED:
            size = _pragma(raw, "page_count") * _pragma(raw, "page_size")
            if size > max_bytes:
                _log.warning(
                    "The file has %d bytes, too many to write it anew while the service runs, so "
                    "it may hold copies of redacted texts: run `ticket-activity compact`.",
                    size,
                )
                return self._truncate_log()
            raw.execute("VACUUM").close()
            raw.execute(f"PRAGMA user_version = {_Erasure.IN_LOG:d}").close()
        if not self._truncate_log():
            return False
        raw.execute(f"PRAGMA user_version = {_Erasure.NONE:d}").close()
        return True

    def _data_version(self) -> int:
        return _pragma(self._driver._conn, "data_version")


class _Erasure(IntEnum):
    """What is left to do of an erasure: the `user_version` of the file, which nothing else uses."""

    NONE = 0
    MARKED = 1
    IN_LOG = 2


@dataclass(slots=True, eq=False)
class SqliteDatabase:
    """One connection for writes, opened when it is first needed, and any number for reads."""

    file: Path
    compact_bytes: int = COMPACT_BYTES
    _writing: SqliteConnection | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run a function in one transaction that holds the write lock, and commit it."""
        connection = await self._write_connection()
        try:
            return await connection.run(partial(run_in_transaction, work))
        except (DBAPIError, CommitFailed):
            # Its state is unknown, so the next unit of work gets a new connection.
            self._writing = None
            await connection.close()
            raise

    async def read(self, work: Callable[[Session], T]) -> T:
        connection = await self.connect_for_reads()
        try:
            return await connection.run(work)
        finally:
            await connection.close()

    async def connect_for_reads(self, *, is_long: bool = False) -> SqliteConnection:  # noqa: ARG002
        """Open a connection that cannot write. Its transactions begin with the first statement."""
        return await SqliteConnection.open(self.file, begin="BEGIN", is_query_only=True)

    async def require_usable(self, seconds: float, tell: Callable[[str], None]) -> None:  # noqa: ARG002
        """Raise DatabaseUnusable where there is no file or it cannot be opened.

        Asked before the first connection: aiosqlite leaves a thread behind where that fails.
        """
        if not self.file.exists():
            raise DatabaseUnusable(
                f"There is no database {self.file}; TICKET_ACTIVITY_DATABASE_URL names another, "
                "and `ticket-activity migrate` makes one."
            )
        try:
            sqlite3.connect(self.file).close()
        except sqlite3.Error as error:
            raise DatabaseUnusable(f"Cannot use the database {self.file}: {error}.") from None

    async def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        await self.write(lambda session: upgrade(session.connection()))

    @asynccontextmanager
    async def hold_writes(self) -> AsyncIterator[None]:
        with closing(sqlite3.connect(self.file, timeout=0, isolation_level=None)) as holding:
            try:
                holding.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise DatabaseUnusable(f"Cannot lock {self.file}: {error}.") from None
            yield

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[WaitForCommits]:
        version = await self._version()
        rested_at = time.monotonic()

        async def wait_for_commits() -> Collection[UUID] | None:
            nonlocal version, rested_at
            # The reads that follow from watching take at most a tenth of the time.
            await asyncio.sleep(max(WATCH_SECONDS, 10 * (time.monotonic() - rested_at)))
            before, version = version, await self._version()
            rested_at = time.monotonic()
            return () if version == before else None

        yield wait_for_commits

    async def _version(self) -> tuple[SqliteConnection, int | None]:
        """Return what differs once another process has committed, or an error has come between.

        It is the version of the connection that writes: this process commits on no other one.
        """
        connection = await self._write_connection()
        try:
            return connection, await connection.data_version()
        except ValueError:  # it was closed meanwhile, after an error
            return connection, None

    def announce(self, ticket_ids: Collection[UUID]) -> None:
        """Do nothing: other processes notice the commit by `data_version`."""

    async def truncate_log(self) -> bool:
        return await (await self._write_connection()).truncate_log()

    def mark_erasure(self, session: Session) -> None:
        mark = f"PRAGMA user_version = {_Erasure.MARKED:d}"
        session.connection().exec_driver_sql(mark)

    async def erase(self) -> bool:
        """Write the file anew if an erasure is marked, and truncate the write-ahead log.

        `secure_delete` overwrites each deleted row. But where SQLite has moved rows from page to
        page, copies stay in the unused space of pages (seen with 3.40: of about 3 % of the rows),
        and only VACUUM removes those. It holds the write lock meanwhile.
        """
        return await (await self._write_connection()).erase(self.compact_bytes)

    async def compact(self) -> bool:
        await self.write(self.mark_erasure)
        return await (await self._write_connection()).erase(sys.maxsize)

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


def sqlite_file(address: URL) -> Path:
    """Return the file of a SQLite address in full. Raises DatabaseUnusable for one in memory."""
    if not address.database or address.database == ":memory:" or "mode" in address.query:
        raise DatabaseUnusable(
            "TICKET_ACTIVITY_DATABASE_URL must name a file: a database in memory keeps nothing."
        )
    return Path(address.database).absolute()


def give_to_owner_of_folder(file: Path) -> None:
    """Give a database that root has made to the user whom the service runs as."""
    if os.geteuid() == 0:
        folder = file.parent.stat()
        os.chown(file, folder.st_uid, folder.st_gid)


def _holds_words(message: str, words: str) -> bool:
    """Return whether a message contains all words of a text, which is folded."""
    return holds_words(message.casefold(), words.split(" "))


def _pragma(raw: sqlite3.Connection, name: str) -> int:
    [value] = raw.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _verify(name: str, expected: object, row: Any) -> None:
    if row is None or row[0] != expected:
        raise DatabaseUnusable(f"SQLite did not take PRAGMA {name} = {expected}.")
