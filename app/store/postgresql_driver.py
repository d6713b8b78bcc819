"""Connections of asyncpg that give up a server which does not answer.

A server, or the network before it, may stop without closing a connection: the kernel still takes
what is sent. So every message has a time within which it must be answered.
"""

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, Final

import asyncpg

from app.store.postgresql_options import PostgresqlOptions

begin_message: ContextVar[str] = ContextVar("begin_message")
"""The message by which transactions of this task begin."""

_CLOSE_SECONDS: Final = 2
"""How long a connection that failed may take to end its transaction, or to close."""


CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server is just ending the connection
)
"""What is raised where a connection is lost, or none can be had."""


class _Transaction:
    """What SQLAlchemy asks of a transaction of asyncpg, begun with a text of ours."""

    def __init__(self, connection: "Driver") -> None:
        self._connection = connection

    async def start(self) -> None:
        # It also finds out whether the server of a pooled connection is still there.
        seconds = self._connection.answer_seconds
        await self._answered(self._connection.execute(begin_message.get(), timeout=seconds))

    async def commit(self) -> None:
        # A transaction that has failed answers COMMIT with ROLLBACK, and no error.
        if (done := await self._answered(self._connection.execute("COMMIT"))) != "COMMIT":
            raise asyncpg.InterfaceError(f"COMMIT was answered {done}")

    async def rollback(self) -> None:
        await self._answered(self._connection.execute("ROLLBACK", timeout=_CLOSE_SECONDS))

    async def _answered(self, answer: Awaitable[str]) -> str:
        """Return the answer. One that does not come ends the connection, so that nobody uses it.

        So does one that leaves a transaction open, such as that to a ROLLBACK that an operator or
        a limit of time cancels: SQLAlchemy takes the transaction for ended, and the pool would give
        the connection to others.
        """
        try:
            return await answer
        except TimeoutError:
            reason = "the server does not answer"
        except asyncpg.InternalClientError as error:  # the server is just ending the connection
            reason = str(error)
        except asyncpg.PostgresError:
            if self._connection.is_in_transaction():
                self._connection.terminate()
            raise
        self._connection.terminate()
        raise asyncpg.ConnectionFailureError(reason)


class Driver(asyncpg.Connection):  # type: ignore[misc]
    """A connection of asyncpg whose transactions begin with the text of their task."""

    answer_seconds: float

    def transaction(self, **_: Any) -> _Transaction:
        return _Transaction(self)

    async def end(self) -> None:
        """Close the connection, whatever state it is in."""
        try:
            await self.close(timeout=_CLOSE_SECONDS)
        except CONNECTION_ERRORS:
            self.terminate()


async def connect(url: str, options: PostgresqlOptions, seconds: float | None) -> Driver:
    """Open a connection whose statements must be answered within so many seconds, if any.

    Not to a standby, which after a failover may answer where the primary did: a client could not
    read there what it wrote. Raises OSError, TimeoutError and what asyncpg raises.
    """
    try:
        connection: Driver = await asyncpg.connect(
            url.replace("postgresql+asyncpg", "postgresql", 1),
            connection_class=Driver,
            timeout=options.connect_seconds,
            command_timeout=seconds,
            target_session_attrs="primary",
            statement_cache_size=0 if options.is_pooled else 100,
            server_settings={"application_name": "ticket-activity"},
        )
    except TimeoutError:
        raise TimeoutError(f"no answer within {options.connect_seconds:g} seconds") from None
    except asyncpg.TargetServerAttributeNotMatched:
        raise ConnectionError("the server is a standby") from None
    connection.answer_seconds = options.answer_seconds
    return connection
