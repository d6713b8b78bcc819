"""The seam between the store and the engine of its database; and the only COMMIT.

Work is a function of a SQLModel session. It runs as a whole where the connection lives: on SQLite
in the thread of an aiosqlite connection.
"""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Connection as CoreConnection
from sqlmodel import Session

from app.store.errors import CommitFailed

T = TypeVar("T")

WaitForCommits = Callable[[], Awaitable[Collection[UUID] | None]]
"""Waits a moment; returns the tickets that others may have changed, None where it may be any."""


class Connection(Protocol):
    """A connection that reads: one state of the database until its session is rolled back."""

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run a function of the session."""

    def stop_when(self, should_stop: Callable[[], bool] | None) -> None:
        """From within `run`: see to it that statements end soon after `should_stop` is true."""

    def allow_search(self, characters: int) -> None:
        """Let text searches read so many characters, where the engine counts them."""

    @property
    def search_limit(self) -> int: ...

    @property
    def is_search_exhausted(self) -> bool: ...

    def time_spent(self) -> float:
        """From within `run`: return a clock of what statements cost, in seconds."""

    def resume(self, session: Session) -> None:
        """From within `run`: make the state readable again after a statement that failed."""

    async def close(self) -> None: ...


class Database(Protocol):
    """The database of this process."""

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run a function in one transaction, and commit it.

        An error in the function rolls everything back. Where the engine wants a transaction to be
        repeated, the function runs again. Raises CommitFailed where the COMMIT fails.
        """

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a function that reads one state of the database, on a connection opened for it."""

    async def connect_for_reads(self, *, is_long: bool = False) -> Connection:
        """Return a connection that cannot write. `is_long` lets its statements take long."""

    async def migrate(self, upgrade: Callable[[CoreConnection], None]) -> None:
        """Run a function that changes tables; in one process at a time, in one transaction."""

    def watch(self) -> AbstractAsyncContextManager[WaitForCommits]:
        """Yield a function that waits for the commits of other processes."""

    def announce(self, ticket_ids: Collection[UUID]) -> None:
        """Tell other processes soon that changes of these tickets have been committed."""

    async def truncate_log(self) -> bool:
        """Give the disk space of a write-ahead log back; False where somebody reads it."""

    async def close(self) -> None: ...


def run_in_transaction(work: Callable[[Session], T], session: Session) -> T:
    """Run a function of a session and commit."""
    try:
        session.connection()  # on SQLite it takes the write lock
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
