"""The feed as processes follow it: what was committed, by this process or another, wakes readers.

Nothing is handed over in memory that was not read back from the database after its COMMIT, in the
order of the ticket's `seq`. So there is one path for the changes of every process, and no
subscriber can see one twice, early, or out of order.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

import sqlmodel
from sqlalchemy import ColumnElement, case, select
from sqlmodel.sql.expression import Select

from app.activity.state import Activity, ChangeType
from app.activity.visible_changes import FeedEntry
from app.errors import Reconnect
from app.store import rows
from app.store.database import Database

_log = logging.getLogger(__name__)

PAGE_SIZE: Final = 100
_RECENT: Final = 64
_PAUSE_SECONDS: Final = 1

_ACTIVITY, _CHANGE, _TICKET = rows.ACTIVITY.c, rows.CHANGE.c, rows.TICKET.c
_FEED_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _CHANGE.seq,
    _CHANGE.change_type,
    _CHANGE.was_private,
    _ACTIVITY.is_private.label("is_private_now"),
    _ACTIVITY.deleted_at.label("deleted_now"),
    # The activity as the change left it: what no update changes, and the rest from the history.
    _ACTIVITY.ticket_id,
    _ACTIVITY.id,
    _ACTIVITY.activity_type,
    _CHANGE.is_private,
    _ACTIVITY.created_at,
    _ACTIVITY.actor_id,
    _CHANGE.message,
    _CHANGE.metadata,
    _ACTIVITY.document_id,
    _CHANGE.version,
    _CHANGE.changed_at,
    _CHANGE.changed_by_id,
    case((_CHANGE.change_type == ChangeType.REMOVED, _CHANGE.changed_at)).label("deleted_at"),
)


async def load_changes(
    database: Database, ticket_id: UUID, *, after: int, size: int = PAGE_SIZE
) -> list[FeedEntry]:
    """Return the changes of a ticket after a `seq`, the oldest first."""
    statement = (
        select(*_FEED_COLUMNS)
        .join_from(
            rows.CHANGE,
            rows.ACTIVITY,
            (_ACTIVITY.ticket_id == _CHANGE.ticket_id) & (_ACTIVITY.id == _CHANGE.activity_id),
        )
        .where(_CHANGE.ticket_id == ticket_id, _CHANGE.seq > after)
        .order_by(_CHANGE.seq)
        .limit(size)
    )
    async with database.snapshot() as session:
        return [_entry(row) for row in await session.exec(cast("Select[Any]", statement))]


def _entry(row: Sequence[Any]) -> FeedEntry:
    seq, change_type, was_private, is_private_now, deleted_now, *activity = row
    is_private_now = None if deleted_now else is_private_now
    return FeedEntry(seq, change_type, Activity(*activity), was_private, is_private_now)


async def load_last_seqs(database: Database, ticket_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return the `seq` of the newest change of each ticket that exists."""
    statement = sqlmodel.select(_TICKET.id, _TICKET.last_seq).where(
        _TICKET.id.in_(list(ticket_ids))
    )
    async with database.snapshot() as session:
        return dict((await session.exec(statement)).all())


@dataclass(slots=True)
class _Topic:
    """What the subscribers of one ticket share: its newest changes and what wakes them."""

    last_seq: int
    readers: int = 0
    recent: deque[FeedEntry] = field(default_factory=lambda: deque(maxlen=_RECENT))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def after(self, seq: int) -> list[FeedEntry] | None:
        """Return the changes after a `seq`; None where some of them are not kept here any more."""
        missing = self.last_seq - seq
        if missing > len(self.recent):
            return None
        return [self.recent[index] for index in range(len(self.recent) - missing, len(self.recent))]

    def extend(self, entries: Sequence[FeedEntry]) -> None:
        self.recent.extend(entries)
        self.last_seq = entries[-1].seq
        self.wake()

    def wake(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


@dataclass(slots=True, eq=False)
class Feed:
    """Follows the changes of tickets that somebody listens to. `run` must be running."""

    database: Database
    _topics: dict[UUID, _Topic] = field(default_factory=dict)
    _changed: set[UUID] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _has_topics: asyncio.Event = field(default_factory=asyncio.Event)
    _is_closing: bool = False

    async def follow(self, ticket_id: UUID, seq: int) -> AsyncGenerator[list[FeedEntry]]:
        """Yield the changes after a `seq`, in order and each once.

        Holds no session while it waits. Whoever takes long between two of them reads on from the
        database; the others do not notice. Raises Reconnect when the feed is closed.
        """
        async with self._topic(ticket_id) as topic:
            while not self._is_closing:
                news = topic.news
                entries = topic.after(seq)
                if entries is None:
                    entries = await load_changes(self.database, ticket_id, after=seq)
                if entries:
                    seq = entries[-1].seq
                    yield entries
                else:
                    await news.wait()
        raise Reconnect("The service is shutting down; resume the stream after the last cursor.")

    def notify(self, ticket_ids: Collection[UUID]) -> None:
        """Say that changes of these tickets have been committed."""
        if heard := self._topics.keys() & ticket_ids:
            self._changed |= heard
            self._wake.set()

    def close(self) -> None:
        """End every stream."""
        self._is_closing = True
        self._wake.set()
        self._has_topics.set()
        for topic in self._topics.values():
            topic.wake()

    async def run(self) -> None:
        """Read what was committed until closed."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            while not self._is_closing:
                await self._wake.wait()
                self._wake.clear()
                await self._read()
            watching.cancel()

    async def _read(self) -> None:
        try:
            await self._read_changed()
        except Exception as error:
            _log.error("The feed cannot read; it tries again.", exc_info=error)
            await asyncio.sleep(_PAUSE_SECONDS)
            self._wake.set()

    async def _read_changed(self) -> None:
        while self._changed:
            ticket_id = next(iter(self._changed))
            if topic := self._topics.get(ticket_id):
                while entries := await load_changes(
                    self.database, ticket_id, after=topic.last_seq, size=_RECENT
                ):
                    topic.extend(entries)
            self._changed.discard(ticket_id)

    async def _watch(self) -> None:
        """Find what other processes committed, while anybody listens."""
        while not self._is_closing:
            await self._has_topics.wait()
            try:
                await self._watch_topics()
            except Exception as error:
                _log.error("The feed cannot watch; it tries again.", exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _watch_topics(self) -> None:
        async with self.database.watch() as has_changed:
            await self._find_changed()  # what came before the watch began
            while self._topics and not self._is_closing:
                if await has_changed():
                    await self._find_changed()

    async def _find_changed(self) -> None:
        last_seqs = await load_last_seqs(self.database, self._topics)
        self.notify(
            {
                ticket_id
                for ticket_id, seq in last_seqs.items()
                if (topic := self._topics.get(ticket_id)) and seq > topic.last_seq
            }
        )

    @asynccontextmanager
    async def _topic(self, ticket_id: UUID) -> AsyncIterator[_Topic]:
        topic = self._topics.get(ticket_id)
        if topic is None:
            last_seqs = await load_last_seqs(self.database, [ticket_id])
            topic = self._topics.setdefault(ticket_id, _Topic(last_seqs.get(ticket_id, 0)))
            self._has_topics.set()
            # What was committed between the reading and the joining is read now.
            self.notify({ticket_id})
        topic.readers += 1
        try:
            yield topic
        finally:
            topic.readers -= 1
            if not topic.readers:
                del self._topics[ticket_id]
            if not self._topics and not self._is_closing:
                self._has_topics.clear()
