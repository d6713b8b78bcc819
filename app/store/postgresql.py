"""PostgreSQL by asyncpg: sessions on pooled connections, work in greenlets of the event loop.

A transaction begins with one message that also sets its bounds, so that nothing is kept in the
connection and a pooler may give each transaction another one.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import IntegrityError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from app.json_text import dump_json, load_json
from app.store.bell import Bell, listen
from app.store.engine import Database, WaitForCommits, run_in_transaction
from app.store.errors import CommitFailed, DatabaseUnusable, LongRead
from app.store.faults import Fault, fault_of
from app.store.migration_lock import make_lock, take_lock
from app.store.postgresql_options import PostgresqlOptions

T = TypeVar("T")

_begin: ContextVar[str] = ContextVar("begin")
"""The message by which transactions of this task begin."""

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
"""How often a unit of work is run where the engine or the network wants it repeated."""

_PAUSE_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.05
"""How often it is looked whether a long read is to be stopped."""

_MIGRATE_SECONDS: Final = 600
"""How long a process waits for another one that migrates, and how long a migration may take."""

_SHARED_STATEMENT_MS: Final = 100
"""How long a statement may take on a connection that others share."""

_WAITING_SHARE: Final = 10
"""A statement mostly waits; this share of its time stands for the time of a processor."""


class _Transaction:
    """What SQLAlchemy asks of a transaction of asyncpg, begun with a text of ours."""

    def __init__(self, connection: "_Driver", begin: str) -> None:
        self._connection = connection
        self._begin = begin

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        # A transaction that has failed answers COMMIT with ROLLBACK, and no error.
        if (done := await self._connection.execute("COMMIT")) != "COMMIT":
            raise asyncpg.InterfaceError(f"COMMIT was answered {done}")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


class _Driver(asyncpg.Connection):  # type: ignore[misc]
    """A connection of asyncpg whose transactions begin with the text of their task."""

    def transaction(self, **_: Any) -> _Transaction:
        return _Transaction(self, _begin.get())


class PostgresqlConnection:
    """A session that reads. It holds a connection of the pool while it is in a transaction."""

    def __init__(self, session: AsyncSession, begin: str, *, is_long: bool) -> None:
        self._session = session
        self._begin = begin
        self._is_long = is_long
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run a function of the session. Where the caller is cancelled, it is cancelled."""
        async with self._lock:  # a session does one thing at a time
            self._task = asyncio.current_task()
            _begin.set(self._begin)
            result: T = await self._session.run_sync(work)  # type: ignore[arg-type]
            return result

    def stop_when(self, should_stop: Callable[[], bool] | None) -> None:
        """On a shared connection the engine itself ends statements; see `_SHARED_STATEMENT_MS`.

        Raises LongRead where there is no time left at all.
        """
        if self._looking:
            self._looking.cancel()
            self._looking = None
        if should_stop and should_stop():
            raise LongRead
        if should_stop and self._is_long:
            self._look(should_stop)

    def _look(self, should_stop: Callable[[], bool]) -> None:
        """Cancel the work where it is to be stopped; the engine then ends the statement."""
        if should_stop() and self._task:
            self._task.cancel()
            return
        self._looking = asyncio.get_running_loop().call_later(
            _LOOK_SECONDS, self._look, should_stop
        )

    def allow_search(self, characters: int) -> None:
        """Do nothing: a search, like any long read, ends with the time of a statement."""

    @property
    def search_limit(self) -> int:
        return 0

    @property
    def is_search_exhausted(self) -> bool:
        return False

    def time_spent(self) -> float:
        return asyncio.get_running_loop().time() / _WAITING_SHARE

    def resume(self, session: Session) -> None:
        """Go back to the savepoint at the beginning, which keeps the snapshot."""
        session.connection().exec_driver_sql("ROLLBACK TO SAVEPOINT snapshot")

    async def close(self) -> None:
        await self._session.close()


@dataclass(slots=True, eq=False)
class PostgresqlDatabase:
    """Pools that grow with what asks for connections, which the floors above bound."""

    url: str
    options: PostgresqlOptions = field(default_factory=PostgresqlOptions)
    _engine: AsyncEngine = field(init=False)
    _bell: Bell | None = None

    def __post_init__(self) -> None:
        self._engine = self._create_engine()

    async def write(self, work: Callable[[Session], T]) -> T:
        begin = _begin_write(self.options.lock_seconds, self.options.statement_seconds)
        return await self._write(begin, work)

    async def read(self, work: Callable[[Session], T]) -> T:
        connection = await self.connect_for_reads(is_long=True)
        try:
            return await connection.run(work)
        finally:
            await connection.close()

    async def connect_for_reads(self, *, is_long: bool = False) -> PostgresqlConnection:
        """Return a session; it connects with the first statement."""
        limit = int(self.options.statement_seconds * 1000) if is_long else _SHARED_STATEMENT_MS
        begin = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SET LOCAL statement_timeout = {limit}; SAVEPOINT snapshot"
        )
        return PostgresqlConnection(self._session(), begin, is_long=is_long)

    async def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        begin = _begin_write(_MIGRATE_SECONDS, _MIGRATE_SECONDS)
        try:
            await self._write(begin, make_lock)
        except IntegrityError:  # another process makes the table at this moment
            await self._write(begin, make_lock)

        def migrate_alone(session: Session) -> None:
            take_lock(session)
            upgrade(session.connection())

        await self._write(begin, migrate_alone)

    @asynccontextmanager
    async def hold_writes(self) -> AsyncIterator[None]:
        names = ", ".join(SQLModel.metadata.tables)
        connection = await self.connect_driver()
        try:
            await connection.execute(_begin_write(self.options.lock_seconds, 0))
            await connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
            yield
        except asyncpg.LockNotAvailableError:
            raise DatabaseUnusable(f"{self._name} is being written to.") from None
        finally:
            await _close(connection)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[WaitForCommits]:
        seconds = self.options.poll_seconds
        if not self._listens:

            async def poll() -> None:
                await asyncio.sleep(seconds)

            yield poll
            return
        connection = await self.connect_driver()
        try:
            async with listen(connection, seconds, lambda: self._bell) as wait_for_commits:
                yield wait_for_commits
        finally:
            await _close(connection)

    def announce(self, ticket_ids: Collection[UUID]) -> None:
        if not self._listens:
            return
        if self._bell is None:
            self._bell = Bell(self.connect_driver)
        self._bell.ring(ticket_ids)

    async def require_usable(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Wait until the server answers. Raises DatabaseUnusable."""
        end = time.monotonic() + seconds
        while (reason := await self._reason_against()) and time.monotonic() < end:
            tell(f"{self._name} cannot be reached yet ({reason}); trying for {seconds:g} seconds.")
            await asyncio.sleep(_PAUSE_SECONDS * 10)
        if reason:
            raise DatabaseUnusable(f"{self._name} cannot be reached: {reason}.")

    async def _reason_against(self) -> str | None:
        """Return why the server cannot be reached. Raises DatabaseUnusable where it refuses."""
        try:
            encoding = await self.read(lambda session: session.scalar(text("SHOW server_encoding")))
        except Exception as error:
            reason = " ".join(str(getattr(error, "orig", error)).split()) or type(error).__name__
            if fault_of(error) is not Fault.LOST:
                raise DatabaseUnusable(f"{self._name} refuses: {reason}.") from None
            return reason
        if encoding != "UTF8":
            raise DatabaseUnusable(f"{self._name} has the encoding {encoding}; it must be UTF8.")
        return None

    @property
    def _name(self) -> str:
        address = make_url(self.url)
        return f"The database {address.database} at {address.host}:{address.port or 5432}"

    async def truncate_log(self) -> bool:
        """Do nothing: PostgreSQL reuses its log by itself."""
        return True

    def mark_erasure(self, session: Session) -> None:
        """Do nothing: see `compact`."""

    async def erase(self) -> bool:
        """Do nothing: PostgreSQL's own VACUUM frees the space of rows that are gone."""
        return True

    async def compact(self) -> bool:
        """Write the tables anew; reads and writes of them wait meanwhile."""
        connection = await self.connect_driver()
        try:
            await connection.execute("VACUUM FULL ticket_activity, ticket_activity_change")
        finally:
            await _close(connection)
        return True

    async def close(self) -> None:
        if self._bell:
            await self._bell.close()
        await self._engine.dispose()

    async def connect_driver(self) -> _Driver:
        """Open a connection of its own."""
        dsn = self.url.replace("postgresql+asyncpg", "postgresql", 1)
        connection: _Driver = await asyncpg.connect(
            dsn,
            connection_class=_Driver,
            timeout=self.options.connect_seconds,
            statement_cache_size=0 if self.options.is_pooled else 100,
            server_settings={"application_name": "ticket-activity"},
        )
        return connection

    @property
    def _listens(self) -> bool:
        return self.options.listens and not self.options.is_pooled

    async def _write(self, begin: str, work: Callable[[Session], T]) -> T:
        """Run a transaction, again where it gave way or its connection ended before the COMMIT."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return await self._write_once(begin, work)
            except Exception as error:
                if not _is_to_repeat(error):
                    raise
                _log.warning("A transaction is repeated: %s", _reason(error))
            await asyncio.sleep(_PAUSE_SECONDS * attempt * random.uniform(0.5, 1.5))  # noqa: S311
        return await self._write_once(begin, work)

    async def _write_once(self, begin: str, work: Callable[[Session], T]) -> T:
        _begin.set(begin)
        async with self._session() as session:
            result: T = await session.run_sync(partial(run_in_transaction, work))
            return result

    def _session(self) -> AsyncSession:
        return AsyncSession(self._engine, autoflush=False)

    def _create_engine(self) -> AsyncEngine:
        return create_async_engine(
            "postgresql+asyncpg://",
            connect_args={"async_creator_fn": self.connect_driver} | self._prepared_statements(),
            pool_size=0,  # as many as are asked for
            pool_use_lifo=True,
            json_serializer=dump_json,
            json_deserializer=load_json,
            hide_parameters=True,  # what people wrote does not belong into a log
        )

    def _prepared_statements(self) -> dict[str, Any]:
        if not self.options.is_pooled:
            return {}
        # The unnamed statement ends with the next one, wherever that runs.
        return {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


def open_postgresql(url: str, options: PostgresqlOptions) -> Database:
    """Return the database of an address; nothing is opened yet."""
    return PostgresqlDatabase(url, options)


def _begin_write(lock_seconds: float, statement_seconds: float) -> str:
    return (
        f"BEGIN; SET LOCAL lock_timeout = {int(lock_seconds * 1000)}; "
        f"SET LOCAL statement_timeout = {int(statement_seconds * 1000)}"
    )


def _is_to_repeat(error: Exception) -> bool:
    """Whether a transaction may be run again: it is certain that it was not committed."""
    if isinstance(error, CommitFailed):
        cause = error.__cause__
        # asyncpg itself refused to send the COMMIT, or the engine answered that it gave way.
        return isinstance(cause, InterfaceError) or fault_of(cause) is Fault.TO_REPEAT
    return fault_of(error) in {Fault.TO_REPEAT, Fault.LOST}


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, CommitFailed) else error
    return f"{type(cause).__name__} {getattr(getattr(cause, 'orig', cause), 'sqlstate', '')}"


async def _close(connection: _Driver) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
