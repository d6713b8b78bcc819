"""Runs loads, the reads of operations, one after the other on the thread of a connection.

A load that fails affects its caller alone. One whose caller has gone is skipped, or interrupted if
it runs already.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from sqlmodel import Session

from app.errors import QueryTooComplex
from app.spans import Origin
from app.store.engine import Connection
from app.store.errors import LongRead
from app.store.faults import Fault, as_told, fault_of

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_WALL_SECONDS: Final = 0.5

Batch = Callable[[Session, Sequence[K]], Mapping[K, V]]
"""A load by keys: one call serves several callers, with one statement."""

_KEYS_PER_STATEMENT: Final = 256
"""Most keys of one statement, unless one caller has more. It bounds memory."""


class Snapshot(Protocol):
    """One state of the database, for the reads of one operation."""

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:
        """Return what a function of the session returns. `is_long`: not on a shared connection."""

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        """Return a value for each key, None where `batch` finds none.

        Loads of several callers with the same `batch` may be merged into one call of it.
        """


@dataclass(slots=True, eq=False)
class Load:
    """One load with the future of its caller: `batch` with `keys`, or else `work`.

    `seconds` is the processor time that it may take, None if there is no bound; `taken` is the time
    that it took.
    """

    answer: "asyncio.Future[Any]"
    seconds: float | None
    work: Callable[[Session], Any] | None = None
    batch: Batch[Any, Any] | None = None
    keys: Sequence[Any] = ()
    taken: float = 0
    origin: Origin = None

    def settle(self, verdict: object) -> None:
        """Give the caller its result or error, unless it has gone."""
        if self.answer.done():
            return
        if isinstance(verdict, BaseException):
            self.answer.set_exception(verdict)
        else:
            self.answer.set_result(verdict)


Verdicts = list[tuple[Load, object]]


def run_loads(
    connection: Connection, session: Session, loads: Sequence[Load], hop_seconds: float
) -> tuple[Verdicts, list[Load]]:
    """Run loads. Return the results and errors, and the loads that were not begun in time."""
    end = time.monotonic() + hop_seconds
    verdicts: Verdicts = []
    rest: list[Load] = []
    for step in _steps([load for load in loads if not load.answer.done()]):
        if verdicts and time.monotonic() > end:
            rest += step
        elif batch := step[0].batch:
            verdicts += _run_batch(connection, session, batch, step)
        else:
            verdicts.append((step[0], _attempt(connection, session, step[0])))
    return verdicts, rest


def _steps(loads: Sequence[Load]) -> list[list[Load]]:
    """Return loads in groups that run together: first those by keys, the ones of few keys first."""
    steps: list[list[Load]] = []
    last: dict[Batch[Any, Any], list[Load]] = {}
    sizes: Counter[Batch[Any, Any]] = Counter()
    for load in sorted((load for load in loads if load.batch), key=lambda load: len(load.keys)):
        batch = cast("Batch[Any, Any]", load.batch)
        sizes[batch] += len(load.keys)
        if batch not in last or sizes[batch] > _KEYS_PER_STATEMENT:
            last[batch], sizes[batch] = [], len(load.keys)
            steps.append(last[batch])
        last[batch].append(load)
    return steps + [[load] for load in loads if load.work]


def _run_batch(
    connection: Connection, session: Session, batch: Batch[Any, Any], loads: Sequence[Load]
) -> Verdicts:
    try:
        found = batch(session, list({key for load in loads for key in load.keys}))
    except Exception as error:
        verdict = _verdict(connection, session, error)
        if len(loads) == 1:
            return [(loads[0], verdict)]
        return [one for load in loads for one in _run_batch(connection, session, batch, [load])]
    return [(load, [found.get(key) for key in load.keys]) for load in loads]


def _attempt(connection: Connection, session: Session, load: Load) -> object:
    """Return the result of a load, or its error. Interrupt it when its time is over."""
    assert load.work  # noqa: S101
    # A slow disk must not hold up the others either.
    begin, end = connection.time_spent(), time.monotonic() + _WALL_SECONDS

    def should_stop() -> bool:
        if load.seconds is None or load.answer.done():
            return load.answer.done()
        return connection.time_spent() - begin > load.seconds or time.monotonic() > end

    try:
        connection.stop_when(should_stop)
        result = load.work(session)
        # SQLite does not report an interruption that comes during the last row of a statement.
        return _search_too_large(connection) if connection.is_search_exhausted else result
    except Exception as error:
        return _verdict(connection, session, error)
    finally:
        load.taken = connection.time_spent() - begin
        connection.stop_when(None)


def _verdict(connection: Connection, session: Session, error: Exception) -> Exception:
    """Return the error for the caller. Raise it if the connection is broken."""
    fault = fault_of(error)
    if fault is Fault.LOST:
        raise error
    connection.resume(session)
    if fault is not Fault.INTERRUPTED:
        return as_told(error)
    return _search_too_large(connection) if connection.is_search_exhausted else LongRead()


def _search_too_large(connection: Connection) -> QueryTooComplex:
    return QueryTooComplex(
        f"Looking for text would read more than {connection.search_limit:,} characters. "
        "Restrict the filter: types, actorId, since, until."
    )
