"""PostgreSQL by asyncpg: sessions on pooled connections, work in greenlets of the event loop.

A transaction begins with one message that also sets its bounds, so that nothing is kept in the
connection and a pooler may give each transaction another one.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
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
from app.store.postgresql_driver import Driver, begin_message, connect
from app.store.postgresql_options import PostgresqlOptions

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
"""How often a unit of work is run where the engine or the network wants it repeated."""

_PAUSE_SECONDS: Final = 0.05
_REPEAT_SECONDS: Final = 10
"""A unit of work that has taken so long is not run again."""

_LOOK_SECONDS: Final = 0.05
"""How often it is looked whether a long read is to be stopped."""

_CLOSE_SECONDS: Final = 3
"""How long the connections may take to close at the end."""

_MIGRATE_SECONDS: Final = 600
"""How long a process waits for another one that migrates, and how long a migration may take."""

_SHARED_SECONDS: Final = 0.1
"""How long a statement may take on a connection that others share."""

_BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_WAITING_SHARE: Final = 10
"""A statement mostly waits; this share of its time stands for the time of a processor."""


class PostgresqlConnection:
    """A session that reads. It holds a connection of the pool while it is in a transaction."""

    def __init__(self, session: AsyncSession, seconds: float, *, is_long: bool) -> None:
        self._session = session
        # The time is set after the savepoint, so that going back to it is not under that limit.
        self._limit = f"SET LOCAL statement_timeout = {int(seconds * 1000)}"
        self._begin = f"{_BEGIN_READ}; SAVEPOINT snapshot; {self._limit}"
        self._is_long = is_long
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run a function of the session. Where the caller is cancelled, it is cancelled."""
        async with self._lock:  # a session does one thing at a time
            self._task = asyncio.current_task()
            begin_message.set(self._begin)
            result: T = await self._session.run_sync(work)  # type: ignore[arg-type]
            return result

    def stop_when(self, should_stop: Callable[[], bool] | None) -> None:
        """On a shared connection the engine itself ends statements; see `_SHARED_SECONDS`.

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
        for statement in ("ROLLBACK TO SAVEPOINT snapshot", self._limit):
            session.connection().exec_driver_sql(statement)

    async def close(self) -> None:
        await self._session.close()


@dataclass(slots=True, eq=False)
class PostgresqlDatabase:
    """Pools that grow with what asks for connections, which the floors above bound.

    A pool bounds how long an answer may take, so shared connections have one of their own.
    """

    url: str
    options: PostgresqlOptions = field(default_factory=PostgresqlOptions)
    _engine: AsyncEngine = field(init=False)
    _shared: AsyncEngine = field(init=False)
    _bell: Bell | None = None

    def __post_init__(self) -> None:
        self._engine = self._create_engine(self.options.statement_seconds)
        self._shared = self._create_engine(_SHARED_SECONDS)

    async def write(self, work: Callable[[Session], T]) -> T:
        """See `Database.write`. Runs it again where it gave way or its connection was lost.

        And once where a row that it inserts was there: another process may have inserted it in the
        meantime, and what is decided now is decided on it.
        """
        end = time.monotonic() + _REPEAT_SECONDS
        for attempt in range(1, _ATTEMPTS):
            try:
                return await self._write_once(work)
            except Exception as error:
                is_taken = attempt == 1 and isinstance(error, IntegrityError)
                if not (_is_to_repeat(error) or is_taken) or time.monotonic() > end:
                    raise
                _log.warning("A transaction is repeated: %s", _reason(error))
            await asyncio.sleep(_PAUSE_SECONDS * attempt * random.uniform(0.5, 1.5))  # noqa: S311
        return await self._write_once(work)

    async def read(self, work: Callable[[Session], T]) -> T:
        connection = await self.connect_for_reads(is_long=True)
        try:
            return await connection.run(work)
        finally:
            await connection.close()

    async def connect_for_reads(self, *, is_long: bool = False) -> PostgresqlConnection:
        """Return a session; it connects with the first statement."""
        seconds = self.options.statement_seconds if is_long else _SHARED_SECONDS
        session = _session(self._engine if is_long else self._shared)
        return PostgresqlConnection(session, seconds, is_long=is_long)

    async def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        options = replace(
            self.options, lock_seconds=_MIGRATE_SECONDS, statement_seconds=_MIGRATE_SECONDS
        )
        patient = PostgresqlDatabase(self.url, options)

        def migrate_alone(session: Session) -> None:
            take_lock(session)
            upgrade(session.connection())

        try:
            try:
                await patient.write(make_lock)
            except IntegrityError:  # another process makes the table at this moment
                await patient.write(make_lock)
            await patient.write(migrate_alone)
        finally:
            await patient.close()

    @asynccontextmanager
    async def hold_writes(self) -> AsyncIterator[None]:
        names = ", ".join(SQLModel.metadata.tables)
        connection = await self.connect_driver()
        try:
            await connection.execute(_begin_write(self.options.lock_seconds, 0, 0))
            await connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
            yield
        except asyncpg.LockNotAvailableError:
            raise DatabaseUnusable(f"{self._name} is being written to.") from None
        finally:
            await connection.end()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[WaitForCommits]:
        seconds = self.options.poll_seconds
        if not self._listens:

            async def poll() -> None:
                await asyncio.sleep(seconds)

            yield poll
            return
        connection = await self.connect_driver(self.options.answer_seconds)
        try:
            async with listen(connection, seconds, lambda: self._bell) as wait_for_commits:
                yield wait_for_commits
        finally:
            await connection.end()

    def announce(self, ticket_ids: Collection[UUID]) -> None:
        if not self._listens:
            return
        if self._bell is None:
            self._bell = Bell(partial(self.connect_driver, self.options.answer_seconds))
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
            await connection.end()
        return True

    async def close(self) -> None:
        if self._bell:
            await self._bell.close()
        with suppress(TimeoutError):  # a server that does not answer keeps nobody from ending
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._engine.dispose()
                await self._shared.dispose()

    async def connect_driver(self, seconds: float | None = None) -> Driver:
        """Open a connection of its own, whose statements take so many seconds at most."""
        return await connect(self.url, self.options, seconds)

    @property
    def _listens(self) -> bool:
        return self.options.listens and not self.options.is_pooled

    async def _write_once(self, work: Callable[[Session], T]) -> T:
        options = self.options
        begin_message.set(
            _begin_write(options.lock_seconds, options.statement_seconds, options.lock_seconds)
        )
        async with _session(self._engine) as session:
            result: T = await session.run_sync(partial(run_in_transaction, work))
            return result

    def _create_engine(self, statement_seconds: float) -> AsyncEngine:
        seconds = statement_seconds + self.options.answer_seconds
        open_connection = partial(self.connect_driver, seconds)
        return create_async_engine(
            "postgresql+asyncpg://",
            connect_args={"async_creator_fn": open_connection} | self._prepared_statements(),
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


def _session(engine: AsyncEngine) -> AsyncSession:
    return AsyncSession(engine, autoflush=False)


def _begin_write(lock_seconds: float, statement_seconds: float, idle_seconds: float) -> str:
    """Return how a transaction begins that waits, runs and holds its locks idly for so long."""
    limits = {
        "lock_timeout": lock_seconds,
        "statement_timeout": statement_seconds,
        "idle_in_transaction_session_timeout": idle_seconds,
    }
    return "BEGIN" + "".join(
        f"; SET LOCAL {name} = {int(seconds * 1000)}" for name, seconds in limits.items()
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
