"""Runs the reads of operations. Operations that wait at the same time share a snapshot.

A snapshot is one state of the database, opened after an operation asked for its first load.
Operations that ask while all connections are busy get one snapshot together. Their loads run as
one function on the connection's thread, and loads by key are merged into one statement.

A long read must not delay the others. A load that exceeds the time of its operation on a shared
connection raises LongRead, and the operation is run again from the start on its own connection.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlmodel import Session

from app.errors import Busy
from app.measures import SIZES, Histogram
from app.spans import Spans, span_of_batch
from app.store.engine import Connection, Database, roll_back
from app.store.errors import LongRead
from app.store.faults import is_full
from app.store.loads import Batch, K, Load, Snapshot, V, Verdicts, run_loads
from app.store.long_reads import LongReads, OwnSnapshot, ReadLimits

T = TypeVar("T")

_log = logging.getLogger(__name__)

LOAD_SECONDS: Final = 0.01
"""Processor time that the loads of one operation may take on a shared connection."""

HOP_SECONDS: Final = 0.02
"""Loads not begun after this time run in the next call, so that results are returned by then."""

PATIENCE_SECONDS: Final = 0.02
"""The first connection takes waiting operations at once, each further one only what has waited this
much longer. The fewer connections are in use, the more operations share a snapshot."""

SLOW_SECONDS: Final = 0.004
"""When the calls on a connection take longer, the next one takes what waits without more patience:
64 reads by id take less."""

PAUSE_SECONDS: Final = 0.5
"""How long a connection that was refused is not opened again."""

REFUSED_SECONDS: Final = 1
"""Operations wait for another connection where one served a load within this time."""

_GROUP_SIZE: Final = 256


@dataclass(slots=True, eq=False)
class _Group:
    """Operations that share a snapshot: their loads, and how many of them have not ended."""

    loads: list[Load] = field(default_factory=list)
    running: Sequence[Load] = ()
    asked_at: float = field(default_factory=time.monotonic)
    size: int = 0
    open_count: int = 0
    is_begun: bool = False
    is_over: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, load: Load) -> None:
        self.loads.append(load)
        self._news.set()

    def leave(self) -> None:
        self.open_count -= 1
        if not self.open_count:
            self._news.set()

    async def wait_for_news(self) -> None:
        """Wait for a load, or for the last operation to end."""
        self._news.clear()
        await self._news.wait()

    def reset(self) -> None:
        """Let the loads that run be run again."""
        self.running, self.loads = (), [*self.running, *self.loads]

    def end(self, error: Exception) -> None:
        """Settle all loads with the error, also those that come later."""
        self.is_over = True
        for load in (*self.running, *self.loads):
            load.settle(error)
        self.running, self.loads = (), []


@dataclass(slots=True, eq=False)
class SharedSnapshot:
    """A snapshot that several operations share. It is opened for the first load."""

    _reader: "Reader"
    _token_id: str
    is_long: bool = False
    _group: _Group | None = None
    _left: float = LOAD_SECONDS
    _answers: "set[asyncio.Future[Any]]" = field(default_factory=set)
    _is_closed: bool = False

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:
        """Return the result. Raise LongRead if the load takes too long, and for every load then."""
        self.is_long |= is_long
        result: T = await self._load(work=work)
        return result

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        found: list[V | None] = await self._load(batch=batch, keys=keys)
        return found

    async def _load(self, **load: Any) -> Any:
        if self._is_closed:
            raise asyncio.CancelledError  # its operation has ended; nobody waits for this load
        if self._group is None and not self.is_long:
            self._group = self._reader.join()
        if self.is_long or self._group is None or self._group.is_over:
            self.is_long = True
            raise LongRead
        seconds = min(self._left, self._reader.load_seconds(self._token_id))
        one = Load(asyncio.get_running_loop().create_future(), seconds, **load)
        if self._reader.spans:
            one.origin = self._reader.spans.origin()
        self._answers.add(one.answer)
        self._group.add(one)
        try:
            return await one.answer
        except LongRead:
            self.is_long = True
            raise
        finally:
            self._left -= one.taken
            self._reader.charge(self._token_id, one.taken)
            self._answers.discard(one.answer)

    def close(self) -> None:
        """End what still runs, such as the load of a DataLoader whose operation was cancelled."""
        self._is_closed = True
        for answer in self._answers:
            answer.cancel()
        if self._group:
            self._group.leave()


def charge_nobody(_token_id: str, _seconds: float) -> None:
    """Charge no token for the processor time of loads."""


@dataclass(slots=True, eq=False)
class Reader:
    """Opens snapshots. `run` must be running.

    `charge` is told the token and the processor time, in seconds, of each load.
    """

    database: Database
    limits: ReadLimits
    charge: Callable[[str, float], None] = charge_nobody
    spans: Spans | None = None
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    _groups: deque[_Group] = field(default_factory=deque)
    _waiting: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _long_reads: LongReads = field(init=False)
    _is_closed: bool = False
    _calls: list[float] = field(init=False)
    """When the call that runs on each shared connection began, 0 where none runs."""
    _served_at: float = -REFUSED_SECONDS

    def __post_init__(self) -> None:
        self._long_reads = LongReads(self.database, self.limits, self.charge, self.spans)
        self._calls = [0.0] * self.limits.connections

    @property
    def waiting(self) -> int:
        """How many operations wait for a snapshot."""
        return self._waiting

    @property
    def long_reads(self) -> tuple[int, int]:
        """How many long reads run, and how many wait."""
        return self._long_reads.running, self._long_reads.waiting

    async def read(self, token_id: str, operate: Callable[[Snapshot], Awaitable[T]]) -> T:
        """Run an operation on a shared snapshot; if it takes too long, again on one of its own.

        So `operate` may be called twice and must do nothing but read. Raises Busy.
        """
        snapshot = SharedSnapshot(self, token_id)
        try:
            result = await operate(snapshot)
            if not snapshot.is_long:
                return result
        except Exception:
            if not snapshot.is_long:
                raise
        finally:
            snapshot.close()
        own = self.own_snapshot(token_id)
        try:
            return await operate(own)
        finally:
            await own.close()

    async def load(self, token_id: str, work: Callable[[Session], T]) -> T:
        """Run one load on a snapshot of its own."""
        return await self.read(token_id, lambda snapshot: snapshot.load(work))

    def own_snapshot(self, token_id: str, *, is_patient: bool = False) -> OwnSnapshot:
        """Return a snapshot with a connection of its own, both taken at the first load.

        The caller closes it.
        """
        return OwnSnapshot(self._long_reads, token_id, is_patient)

    def join(self) -> _Group:
        """Join the group that gets the next snapshot. Raise Busy if too many operations wait."""
        if self._is_closed:
            raise Busy("The service is shutting down; send the request again.")
        if self._waiting >= self.limits.queue_size:
            raise Busy(f"{self._waiting} reads are waiting already; send the request again.")
        if not self._groups or self._groups[-1].size >= _GROUP_SIZE:
            self._groups.append(_Group())
        group = self._groups[-1]
        group.size += 1
        group.open_count += 1
        self._waiting += 1
        self._wake.set()
        return group

    def load_seconds(self, token_id: str) -> float:
        """Return the time that a load may take: the less, the more long reads the token has."""
        if not self._long_reads.is_busy:
            return LOAD_SECONDS
        return LOAD_SECONDS / (1 + self._long_reads.count(token_id))

    async def run(self) -> None:
        """Serve the shared snapshots until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self.limits.connections):
                    tasks.create_task(self._serve(number))
        finally:
            self._is_closed = True
            while self._groups:
                self._take().end(_lost())
            await self._long_reads.close()

    async def _serve(self, number: int) -> None:
        """Serve groups on a connection. Replace the connection when it fails."""
        while True:
            group = await self._next_group(number)
            try:
                await self._serve_groups(group, number)
            except Exception as error:
                _log.error("A connection for reads failed.", exc_info=error)

    async def _serve_groups(self, group: _Group, number: int) -> None:
        """Serve this group and those after it on one connection, until that fails or is gone."""
        connection = await self._or_give_back(group, self.database.connect_for_reads())
        try:
            while True:
                await self._or_give_back(group, self._serve_group(connection, group, number))
                is_idle = not self._groups or self._time_left(number) > 0
                # An idle connection must hold no snapshot: the write-ahead log could only grow.
                if is_idle and not await connection.run(roll_back):
                    return
                group = await self._next_group(number)
        finally:
            await connection.close()

    async def _next_group(self, number: int) -> _Group:
        """Return the first group once it has waited long enough for this connection."""
        while True:
            if not self._groups:
                self._wake.clear()
                await self._wake.wait()
            elif (left := self._time_left(number)) > 0:
                await asyncio.sleep(min(left, SLOW_SECONDS))
            else:
                return self._take()

    def _time_left(self, number: int) -> float:
        """Return for how long the first group still waits for the connections before this one."""
        now = time.monotonic()
        left = self._groups[0].asked_at + number * PATIENCE_SECONDS - now
        if number and (began := self._calls[number - 1]):
            return min(left, began + SLOW_SECONDS - now)
        return left

    async def _serve_group(self, connection: Connection, group: _Group, number: int) -> None:
        """Run the loads of a group, until all its operations have ended."""
        while group.open_count:
            if not group.loads:
                await group.wait_for_news()
                continue
            group.running, group.loads = group.loads, []
            hop = self._hop(connection, group.running, number, is_first=not group.is_begun)
            origins = (load.origin for load in group.running)
            with span_of_batch(self.spans, "read batch", origins) as within:
                verdicts, rest = await connection.run(within(hop))
            group.is_begun = True
            self._served_at = time.monotonic()
            group.running, group.loads = (), rest + group.loads
            for load, verdict in verdicts:
                load.settle(verdict)
        group.end(LongRead())

    def _hop(
        self, connection: Connection, loads: Sequence[Load], number: int, *, is_first: bool
    ) -> Callable[[Session], tuple[Verdicts, list[Load]]]:
        def run(session: Session) -> tuple[Verdicts, list[Load]]:
            self._calls[number] = time.monotonic()
            try:
                if is_first:
                    roll_back(session)  # ends the snapshot of the group before
                return run_loads(connection, session, loads, HOP_SECONDS)
            finally:
                self._calls[number] = 0.0

        return run

    async def _or_give_back(self, group: _Group, work: Awaitable[T]) -> T:
        """Await something for a group. If it fails, let it wait again, or its loads fail.

        It waits again where it has seen nothing yet and another connection can serve it: a server
        that takes no more connections goes on with those that are open.
        """
        try:
            return await work
        except BaseException as error:
            is_served = time.monotonic() - self._served_at < REFUSED_SECONDS
            if is_full(error) and is_served and not group.is_begun:
                group.reset()
                self._groups.appendleft(group)
                self._waiting += group.size
                self._wake.set()
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                group.end(_lost())
            raise

    def _take(self) -> _Group:
        group = self._groups.popleft()
        self._waiting -= group.size
        self.batch_sizes.observe(group.size)
        return group


def _lost() -> Busy:
    return Busy("The service stopped or lost the database; send the request again.")
