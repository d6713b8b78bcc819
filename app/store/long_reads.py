"""Lends connections to long reads. Each has its own, and each token may hold only some."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from sqlmodel import Session

from app.errors import Busy
from app.spans import Spans, span_of_batch
from app.store.engine import Connection, Database, roll_back
from app.store.errors import LongRead
from app.store.faults import as_told
from app.store.loads import Batch, K, Load, V, Verdicts, run_loads

T = TypeVar("T")

_log = logging.getLogger(__name__)

_WAITING_PER_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """`connections` are shared by all; `long_connections` serve one long read each, at a time.

    A long read waits `wait_seconds` at most for its turn, and may look for words in texts of so
    many characters.
    """

    connections: int = 2
    long_connections: int = 4
    long_reads_per_token: int = 2
    queue_size: int = 4096
    wait_seconds: float = 5
    search_characters: int = 256_000_000


@dataclass(slots=True, eq=False)
class LongReads:
    """Lends connections in the order of requests, within the limit of each token."""

    database: Database
    limits: ReadLimits
    charge: Callable[[str, float], None]
    spans: Spans | None = None
    _idle: list[Connection] = field(default_factory=list)
    _running: Counter[str] = field(default_factory=Counter)
    _waiting: "list[tuple[str, asyncio.Future[None]]]" = field(default_factory=list)
    _is_closed: bool = False

    @property
    def is_busy(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def running(self) -> int:
        return sum(self._running.values())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def count(self, token_id: str) -> int:
        """Return the number of long reads of a token that run or wait."""
        waiting = sum(1 for waiting_id, _ in self._waiting if waiting_id == token_id)
        return self._running[token_id] + waiting

    async def acquire(self, token_id: str, *, is_patient: bool = False) -> Connection:
        """Return a connection. Raises Busy; with `is_patient` only when thousands wait."""
        limits = self.limits
        most = limits.queue_size if is_patient else _WAITING_PER_TOKEN + limits.long_reads_per_token
        if self.count(token_id) >= most:
            raise Busy("Too many long reads of this token wait already; send the request again.")
        await self._wait_for_turn(token_id, None if is_patient else limits.wait_seconds)
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
        except BaseException:
            self._end(token_id)
            raise
        connection.allow_search(self.limits.search_characters)
        return connection

    async def release(self, token_id: str, connection: Connection) -> None:
        """Take a connection back, and admit the next long read."""
        is_fit = False
        try:
            is_fit = await connection.run(roll_back) and not self._is_closed
        except Exception as error:
            _log.warning("A connection of a long read is broken.", exc_info=error)
        finally:
            if is_fit:
                self._idle.append(connection)
            self._end(token_id)
            if not is_fit:
                await connection.close()

    async def close(self) -> None:
        """Close the connections that are idle, and those still lent when they come back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _connect(self) -> Connection:
        if self._is_closed:
            raise Busy("The service is shutting down; send the request again.")
        return await self.database.connect_for_reads(is_long=True)

    async def _wait_for_turn(self, token_id: str, seconds: float | None) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((token_id, turn))
        self._admit()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._end(token_id)
            if isinstance(error, TimeoutError):
                raise Busy("Other long reads take too long; send the request again.") from None
            raise
        finally:
            self._waiting = [item for item in self._waiting if item[1] is not turn]

    def _end(self, token_id: str) -> None:
        self._running[token_id] -= 1
        if not self._running[token_id]:
            del self._running[token_id]
        self._admit()

    def _admit(self) -> None:
        """Admit those who wait, as far as connections and the limits of tokens allow."""
        for token_id, turn in self._waiting:
            if self._running.total() >= self.limits.long_connections:
                return
            if not turn.done() and self._running[token_id] < self.limits.long_reads_per_token:
                self._running[token_id] += 1
                turn.set_result(None)


@dataclass(slots=True, eq=False)
class OwnSnapshot:
    """A snapshot on a connection that no other operation uses.

    With `is_patient` it waits for the connection as long as its caller waits.
    """

    _long_reads: LongReads
    _token_id: str
    _is_patient: bool = False
    _connection: Connection | None = None
    _running: Load | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_closed: bool = False

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:  # noqa: ARG002
        result: T = await self._load(work=work)
        return result

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        found: list[V | None] = await self._load(batch=batch, keys=keys)
        return found

    async def _load(self, **load: Any) -> Any:
        async with self._lock:
            connection = await self._connect()
            self._running = Load(asyncio.get_running_loop().create_future(), None, **load)
            try:
                return await _run_alone(connection, self._running, self._long_reads.spans)
            except LongRead:
                raise Busy("The read takes too long; ask for less.") from None
            except Exception as error:
                raise as_told(error) from error
            finally:
                self._long_reads.charge(self._token_id, self._running.taken)

    async def _connect(self) -> Connection:
        if self._connection is None and not self._is_closed:
            acquiring = self._long_reads.acquire(self._token_id, is_patient=self._is_patient)
            connection = await acquiring
            if self._is_closed:
                await self._long_reads.release(self._token_id, connection)
            else:
                self._connection = connection
        if self._connection is None:
            raise asyncio.CancelledError  # its operation has ended; nobody waits for this load
        return self._connection

    async def close(self) -> None:
        """End what still runs, such as the load of a DataLoader whose operation was cancelled."""
        self._is_closed = True
        if self._running:
            self._running.answer.cancel()
        if self._connection:
            connection, self._connection = self._connection, None
            await self._long_reads.release(self._token_id, connection)


async def _run_alone(connection: Connection, load: Load, spans: Spans | None) -> Any:
    """Run one load; where its caller is cancelled, interrupt it and wait until it has ended."""
    running = asyncio.ensure_future(_run_on(connection, load, spans))
    try:
        verdicts = await asyncio.shield(running)
    except asyncio.CancelledError:
        load.answer.cancel()
        await asyncio.wait([running])
        raise
    for _, verdict in verdicts:
        load.settle(verdict)
    return await load.answer


async def _run_on(connection: Connection, load: Load, spans: Spans | None) -> Verdicts:
    origin = spans.origin() if spans else None
    with span_of_batch(spans, "read", [origin]) as within:
        verdicts: Verdicts = await connection.run(within(partial(_run_one, connection, load)))
        return verdicts


def _run_one(connection: Connection, load: Load, session: Session) -> Verdicts:
    verdicts, _ = run_loads(connection, session, [load], 0)
    return verdicts
