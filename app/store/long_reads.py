"""Reads that take long: each has a connection of its own, and each token may hold only some."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from sqlmodel import Session

from app.errors import Busy
from app.store.database import Database
from app.store.loads import Batch, K, Load, V, run_loads
from app.store.sqlite import SqliteConnection

T = TypeVar("T")

_WAITING_PER_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """`connections` are shared by all; `long_connections` serve one long read each, at a time.

    A long read waits `wait_seconds` at most for its turn.
    """

    connections: int = 2
    long_connections: int = 4
    long_reads_per_token: int = 2
    queue_size: int = 4096
    wait_seconds: float = 5


@dataclass(slots=True, eq=False)
class LongReads:
    """Lends connections, in the order asked for, as far as the share of each token goes."""

    database: Database
    limits: ReadLimits
    _idle: list[SqliteConnection] = field(default_factory=list)
    _running: Counter[str] = field(default_factory=Counter)
    _waiting: "list[tuple[str, asyncio.Future[None]]]" = field(default_factory=list)

    def count(self, token_id: str) -> int:
        """Return how many long reads of a token run or wait."""
        waiting = sum(1 for waiting_id, _ in self._waiting if waiting_id == token_id)
        return self._running[token_id] + waiting

    async def acquire(self, token_id: str) -> SqliteConnection:
        """Lend a connection. Raises Busy."""
        if self.count(token_id) >= _WAITING_PER_TOKEN + self.limits.long_reads_per_token:
            raise Busy("Too many long reads of this token wait already; send the request again.")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((token_id, turn))
        self._admit()
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._end(token_id)
            if isinstance(error, TimeoutError):
                raise Busy("Other long reads take too long; send the request again.") from None
            raise
        finally:
            self._waiting = [item for item in self._waiting if item[1] is not turn]
        try:
            return self._idle.pop() if self._idle else await self.database.connect_for_reads()
        except BaseException:
            self._end(token_id)
            raise

    async def release(self, token_id: str, connection: SqliteConnection) -> None:
        """Take a connection back and let the next one have its turn."""
        try:
            await connection.run(Session.rollback)
            self._idle.append(connection)
        except Exception:
            await connection.close()  # it is broken
        finally:
            self._end(token_id)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    def _end(self, token_id: str) -> None:
        self._running[token_id] -= 1
        if not self._running[token_id]:
            del self._running[token_id]
        self._admit()

    def _admit(self) -> None:
        """Let those begin whose turn it is."""
        for token_id, turn in self._waiting:
            if self._running.total() >= self.limits.long_connections:
                return
            if not turn.done() and self._running[token_id] < self.limits.long_reads_per_token:
                self._running[token_id] += 1
                turn.set_result(None)


@dataclass(slots=True, eq=False)
class OwnSnapshot:
    """A snapshot on a connection that nobody else uses meanwhile."""

    _long_reads: LongReads
    _token_id: str
    _connection: SqliteConnection | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:  # noqa: ARG002
        result: T = await self._load(work=work)
        return result

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        found: list[V | None] = await self._load(batch=batch, keys=keys)
        return found

    async def _load(self, **load: Any) -> Any:
        async with self._lock:
            if self._connection is None:
                self._connection = await self._long_reads.acquire(self._token_id)
            return await _run_alone(self._connection, **load)

    async def close(self) -> None:
        if self._connection:
            connection, self._connection = self._connection, None
            await self._long_reads.release(self._token_id, connection)


async def _run_alone(connection: SqliteConnection, **load: Any) -> Any:
    """Run one load; where the caller is cancelled, interrupt it and wait until it has ended."""
    one = Load(asyncio.get_running_loop().create_future(), None, **load)
    running = asyncio.ensure_future(connection.run(partial(_run_one, connection, one)))
    try:
        [(_, verdict)] = await asyncio.shield(running)
    except asyncio.CancelledError:
        one.answer.cancel()
        await asyncio.wait([running])
        raise
    if isinstance(verdict, BaseException):
        raise verdict
    return verdict


def _run_one(connection: SqliteConnection, load: Load, session: Session) -> Any:
    verdicts, _ = run_loads(connection, session, [load], 0)
    return verdicts
