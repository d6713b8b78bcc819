"""What the store needs of a database, as protocols that each engine implements; the only COMMIT.

Work is a function of a SQLModel session. It runs as a whole: on SQLite on the thread of an
aiosqlite connection, on PostgreSQL in a greenlet of the event loop.
"""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Connection as CoreConnection
from sqlmodel import Session

from app.store.errors import CommitFailed
from app.store.faults import Fault, fault_of

T = TypeVar("T")

WaitForCommits = Callable[[], Awaitable[Collection[UUID] | None]]
"""Waits for a while. Returns the tickets that may have changed, or None if any may have."""


class Connection(Protocol):
    """A connection that reads: one state of the database until its session is rolled back."""

    async def run(self, work: Callable[[Session], T]) -> T:
        """Return what a function of the session returns."""

    def stop_when(self, should_stop: Callable[[], bool] | None) -> None:
        """From within `run`: interrupt statements once `should_stop` returns true."""

    def allow_search(self, characters: int) -> None:
        """Set how many characters text searches may read, where the engine counts them."""

    @property
    def search_limit(self) -> int: ...

    @property
    def is_search_exhausted(self) -> bool: ...

    def time_spent(self) -> float:
        """From within `run`: return a clock, in seconds, to measure the cost of statements by."""

    def resume(self, session: Session) -> None:
        """From within `run`: make the snapshot usable again after a statement failed."""

    async def close(self) -> None: ...


class Database(Protocol):
    """The database of this process."""

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run a function in one transaction, and commit it.

        An error in the function rolls everything back. Where the engine wants a transaction to be
        repeated, the function runs again. Raises CommitFailed where the COMMIT fails.
        """

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a function that reads one snapshot, on a new connection."""

    async def connect_for_reads(self, *, is_long: bool = False) -> Connection:
        """Return a connection that cannot write. With `is_long` its statements may take long."""

    async def require_usable(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Raise DatabaseUnusable where the database cannot be used, also after some time.

        `tell` gets a line each time it is waited for.
        """

    async def migrate(self, upgrade: Callable[[CoreConnection], None]) -> None:
        """Run a function that changes tables, in one transaction and in one process at a time."""

    def hold_writes(self) -> AbstractAsyncContextManager[None]:
        """Let no process write meanwhile. Raises DatabaseUnusable where one does."""

    def watch(self) -> AbstractAsyncContextManager[WaitForCommits]:
        """Yield a function that waits for commits of other processes."""

    def announce(self, ticket_ids: Collection[UUID]) -> None:
        """Notify other processes that changes of these tickets have been committed."""

    async def truncate_log(self) -> bool:
        """Truncate the write-ahead log. Return False if a reader prevented it."""

    def mark_erasure(self, session: Session) -> None:
        """From within `write`: note that texts are removed that no file may keep."""

    async def erase(self) -> bool:
        """Remove from the files what marked erasures left in them, as far as the engine can.

        Return False if another connection prevented it: call it again.
        """

    async def compact(self) -> bool:
        """Write the files anew, without what was deleted, however large they are.

        Return False if another connection kept the write-ahead log from being truncated.
        """

    async def close(self) -> None: ...


def run_in_transaction(work: Callable[[Session], T], session: Session) -> T:
    """Run a function of a session and commit."""
    try:
        session.connection()  # on SQLite it takes the write lock
        result = work(session)
        session.flush()
    except BaseException:
        roll_back(session)
        raise
    try:
        session.commit()
    except Exception as error:
        roll_back(session)
        raise CommitFailed from error
    return result


def roll_back(session: Session) -> bool:
    """Roll back. Return False if the connection is gone: its transaction is over all the same."""
    try:
        session.rollback()
    except Exception as error:
        if fault_of(error) is not Fault.LOST:
            raise
        return False
    return True
