"""Loads: what an operation reads, run on the thread of a connection, one after the other.

A load that fails is the failure of its caller alone, and one whose caller has gone is left out, or
interrupted where it runs.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.store.errors import LongRead
from app.store.sqlite import SqliteConnection, is_interrupted

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_WALL_SECONDS: Final = 0.5

Batch = Callable[[Session, Sequence[K]], Mapping[K, V]]
"""A load by keys, which can serve many callers with one statement."""

_KEYS_PER_HOP: Final = 1000
"""Keys of one hop; bounds the statement and what is in memory at a time."""


class Snapshot(Protocol):
    """One state of the database, as one operation reads it."""

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:
        """Run a function of the session. `is_long` keeps it off the shared connections."""

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        """Return a value for each key, None where `batch` finds none.

        Loads of several callers with the same `batch` are one call of it.
        """


@dataclass(slots=True, eq=False)
class Load:
    """One load that somebody waits for. It is by keys if it has a `batch`, else it is `work`.

    `seconds` is how much time of a processor it may take, None for as long as its caller waits;
    `taken` is what it took.
    """

    answer: "asyncio.Future[Any]"
    seconds: float | None
    work: Callable[[Session], Any] | None = None
    batch: Batch[Any, Any] | None = None
    keys: Sequence[Any] = ()
    taken: float = 0

    def settle(self, verdict: object) -> None:
        """Answer the caller, unless it has gone."""
        if self.answer.done():
            return
        if isinstance(verdict, BaseException):
            self.answer.set_exception(verdict)
        else:
            self.answer.set_result(verdict)


Verdicts = list[tuple[Load, object]]


def run_loads(
    connection: SqliteConnection, session: Session, loads: Sequence[Load], hop_seconds: float
) -> tuple[Verdicts, list[Load]]:
    """Run loads; return what each came to, and those that were not begun in time.

    Those by keys come first: they are short.
    """
    waiting = [load for load in loads if not load.answer.done()]
    by_batch, rest = _by_batch([load for load in waiting if load.batch])
    verdicts: Verdicts = []
    for batch, members in by_batch.items():
        verdicts += _run_batch(session, batch, members)
    end = time.monotonic() + hop_seconds
    for load in [load for load in waiting if load.work]:
        if verdicts and time.monotonic() > end:
            rest.append(load)
        else:
            verdicts.append((load, _attempt(connection, session, load)))
    return verdicts, rest


def _by_batch(loads: Sequence[Load]) -> tuple[dict[Batch[Any, Any], list[Load]], list[Load]]:
    """Return the loads of each batch, and those whose keys would be too many for one hop."""
    by_batch: dict[Batch[Any, Any], list[Load]] = {}
    rest: list[Load] = []
    count = 0
    for load in loads:
        count += len(load.keys)
        if by_batch and count > _KEYS_PER_HOP:
            rest.append(load)
        else:
            by_batch.setdefault(load.batch, []).append(load)  # type: ignore[arg-type]
    return by_batch, rest


def _run_batch(session: Session, batch: Batch[Any, Any], loads: Sequence[Load]) -> Verdicts:
    try:
        found = batch(session, list({key for load in loads for key in load.keys}))
    except Exception as error:
        if len(loads) == 1:
            return [(loads[0], error)]
        return [verdict for load in loads for verdict in _run_batch(session, batch, [load])]
    return [(load, [found.get(key) for key in load.keys]) for load in loads]


def _attempt(connection: SqliteConnection, session: Session, load: Load) -> object:
    """Return what the load came to, an error too. It is interrupted when its time is over."""
    assert load.work  # noqa: S101
    # Time of a processor: on a busy machine the thread waits longer than it works. A slow disk
    # must not hold up the others either.
    begin, end = time.thread_time(), time.monotonic() + _WALL_SECONDS

    def should_stop() -> bool:
        if load.seconds is None or load.answer.done():
            return load.answer.done()
        return time.thread_time() - begin > load.seconds or time.monotonic() > end

    connection.stop_when(should_stop)
    try:
        return load.work(session)
    except DBAPIError as error:
        return LongRead() if is_interrupted(error) else error
    except Exception as error:
        return error
    finally:
        load.taken = time.thread_time() - begin
        connection.stop_when(None)
