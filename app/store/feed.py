"""Delivers committed changes, of this process and of others, to subscribers.

The `seq` of a ticket has no gaps, and says which change is the next one. Of what this process has
committed the next ones are taken as they are. Everything else is read from the database: changes of
other processes, and those of this one that come after them. So no subscriber gets a change twice,
before its COMMIT, or out of order.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from sqlmodel import Session

from app.activity.state import Change, TicketState
from app.activity.visible_changes import RecordedChange
from app.auth import Viewer
from app.errors import Busy, Reconnect
from app.measures import SECONDS, Histogram
from app.store.history import News, load_kept_changes, load_news
from app.store.queries import load_states
from app.store.reader import Reader

T = TypeVar("T")

_log = logging.getLogger(__name__)

_RECENT: Final = 64
_RECENT_CHARACTERS: Final = 256 * 1024
_READS: Final = 8  # pages of the history that are read at a time
_TICKETS_PER_LOAD: Final = 16  # so that a load is short enough for a shared connection
_TICKETS_PER_LOOK: Final = 2048  # whose newest `seq` one load reads
_OWNER: Final = ""  # the token id of the feed's own reads
_PAUSE_SECONDS: Final = 1
_WOKEN_AT_ONCE: Final = 8
"""How many subscribers are woken before others have their turn on the event loop: replies, and
statements of the writer. A thousand subscribers of one ticket would hold it for 50 ms."""


@dataclass(slots=True)
class _Topic:
    """What the subscribers of one ticket share: its newest changes and an event to wake them."""

    last_seq: int
    edition: int
    readers: int = 0
    recent: deque[RecordedChange] = field(default_factory=deque)
    characters: int = 0
    waiting: "dict[asyncio.Future[None], None]" = field(default_factory=dict)
    """Subscribers that have been sent everything, in the order in which they began to wait."""

    def after(self, seq: int) -> list[RecordedChange] | None:
        """Return the changes after a `seq`, or None when some are no longer cached."""
        missing = self.last_seq - seq
        if missing > len(self.recent):
            return None
        return [self.recent[index] for index in range(len(self.recent) - missing, len(self.recent))]

    async def news(self) -> None:
        """Wait until something is cached."""
        news = asyncio.get_running_loop().create_future()
        self.waiting[news] = None
        try:
            await news
        finally:
            self.waiting.pop(news, None)

    def is_behind(self, state: TicketState) -> bool:
        return self.last_seq < state.seq or self.edition < state.edition

    def take_own(self, changes: Sequence[Change]) -> bool:
        """Cache changes that this process has just committed, unless they must be read.

        They must be if they are not the next ones. A redaction leaves less of the changes before it
        than they hold.
        """
        first = changes[0]
        if (
            first.seq != self.last_seq + 1
            or first.ticket.edition != self.edition
            or any(change.is_redaction for change in changes)
        ):
            return False
        self._extend([RecordedChange.of(change) for change in changes])
        return True

    def take(self, news: News) -> None:
        """Cache what is new. Drop what may hold something that was removed.

        While the news was read, this process may have committed some of it, or more.
        """
        is_another_edition = self.edition < news.state.edition
        self.edition = max(self.edition, news.state.edition)
        if is_another_edition or any(change.is_redaction for change in news.changes or ()):
            self.recent.clear()
            self.characters = 0
        if self.last_seq >= news.state.seq:
            return
        if news.changes is None:
            # Who was not sent what was removed looks for it in the database, which has an error.
            self.last_seq = news.state.seq
        elif changes := [change for change in news.changes if change.seq > self.last_seq]:
            self._extend(changes)

    def _extend(self, changes: Sequence[RecordedChange]) -> None:
        self.recent.extend(changes)
        self.characters += sum(change.characters for change in changes)
        while len(self.recent) > _RECENT or self.characters > _RECENT_CHARACTERS:
            self.characters -= self.recent.popleft().characters
        self.last_seq = changes[-1].seq


@dataclass(slots=True, eq=False)
class Feed:
    """Follows the changes of tickets that somebody listens to. `run` must be running."""

    reader: Reader
    lag_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    _topics: dict[UUID, _Topic] = field(default_factory=dict)
    _changed: set[UUID] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _has_topics: asyncio.Event = field(default_factory=asyncio.Event)
    _reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READS))
    _woken: "deque[asyncio.Future[None]]" = field(default_factory=deque)
    _is_closing: bool = False

    async def follow(
        self, ticket_id: UUID, seq: int, viewer: Viewer
    ) -> AsyncGenerator[list[RecordedChange]]:
        """Yield the changes after a `seq`, in order and each once.

        The viewer's token is charged for what is read from the database for it alone.
        Holds no connection while it waits. A slow subscriber is not waited for: it reads from the
        database what is no longer cached. Raises Reconnect when the feed is closed, and
        CursorExpired where changes that the viewer could be told of were removed before they were
        yielded.
        """
        async with self._topic(ticket_id) as topic:
            while not self._is_closing:
                last_seq = topic.last_seq
                changes = topic.after(seq)
                if changes is None:
                    changes = await self._load_changes(ticket_id, viewer, after=seq)
                if changes:
                    seq = changes[-1].seq
                    yield changes
                elif topic.last_seq == last_seq and not self._is_closing:  # also while it loaded
                    await topic.news()
        raise Reconnect("The service is shutting down; resume the stream after the last cursor.")

    def notify(self, ticket_ids: Collection[UUID]) -> None:
        """Wake those who follow these tickets: changes of them have been committed."""
        if heard := self._topics.keys() & ticket_ids:
            self._changed |= heard
            self._wake.set()

    def publish(self, changes: Sequence[Change]) -> None:
        """Deliver what this process has just committed, and notify others of it."""
        followed: defaultdict[UUID, list[Change]] = defaultdict(list)
        for change in changes:
            if change.ticket.id in self._topics:
                followed[change.ticket.id].append(change)
        for ticket_id, its_changes in followed.items():
            if self._topics[ticket_id].take_own(its_changes):
                self._observe_lag(its_changes[-1].written_at)
                self._wake_subscribers(self._topics[ticket_id])
            else:
                self.notify({ticket_id})
        self.reader.database.announce({change.ticket.id for change in changes})

    def close(self) -> None:
        """End every stream."""
        self._is_closing = True
        self._wake.set()
        self._has_topics.set()
        for topic in self._topics.values():
            self._wake_subscribers(topic)

    def _wake_subscribers(self, topic: _Topic) -> None:
        """Wake those who wait for news of a ticket, in turn with those of other tickets."""
        if not topic.waiting:
            return
        if not self._woken:
            asyncio.get_running_loop().call_soon(self._wake_some)
        self._woken += topic.waiting
        topic.waiting.clear()

    def _wake_some(self) -> None:
        for _ in range(min(len(self._woken), _WOKEN_AT_ONCE)):
            news = self._woken.popleft()
            if not news.done():
                news.set_result(None)
        if self._woken:
            asyncio.get_running_loop().call_soon(self._wake_some)

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
            # Cleared before the read, so that what is committed during it is read next.
            count = min(len(self._changed), _TICKETS_PER_LOAD)
            taken = {self._changed.pop() for _ in range(count)}
            try:
                await self._read_tickets(taken)
            except BaseException:
                self._changed |= taken
                raise

    async def _read_tickets(self, ids: Collection[UUID]) -> None:
        """Read the new changes of these tickets in one load."""
        topics = {id_: topic for id_ in ids if (topic := self._topics.get(id_))}
        after = {id_: topic.last_seq for id_, topic in topics.items()}
        # New changes do not wait behind subscribers who read older ones.
        for id_, news in (await self._load(partial(load_news, after=after))).items():
            topics[id_].take(news)
            self._wake_subscribers(topics[id_])
            if news.changes:
                self._observe_lag(news.changes[-1].recorded_at)
            if news.is_full:
                self._changed.add(id_)

    def _observe_lag(self, written_at: datetime) -> None:
        self.lag_seconds.observe(max(time.time() - written_at.timestamp(), 0))

    async def _load_changes(
        self, ticket_id: UUID, viewer: Viewer, *, after: int
    ) -> list[RecordedChange]:
        """Read changes from the database; only a few such reads run at a time."""
        work = partial(load_kept_changes, viewer=viewer, ticket_id=ticket_id, after=after)
        async with self._reading:
            return await self._load(work, viewer.token_id)

    async def _load(self, work: Callable[[Session], T], token_id: str = _OWNER) -> T:
        """Run one load; while the reader is busy, wait."""
        while True:
            try:
                return await self.reader.load(token_id, work)
            except Busy:
                if self._is_closing:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _watch(self) -> None:
        """Find what other processes committed, while there are subscribers."""
        while not self._is_closing:
            await self._has_topics.wait()
            try:
                await self._watch_topics()
            except Exception as error:
                _log.error("The feed cannot watch; it tries again.", exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _watch_topics(self) -> None:
        async with self.reader.database.watch() as wait_for_commits:
            await self._find_changed()  # committed before the watch began
            while self._topics and not self._is_closing:
                changed = await wait_for_commits()
                if changed is None:
                    await self._find_changed()
                else:
                    self.notify(changed)

    async def _find_changed(self) -> None:
        followed = list(self._topics)
        for begin in range(0, len(followed), _TICKETS_PER_LOOK):
            ids = followed[begin : begin + _TICKETS_PER_LOOK]
            states = await self._load(partial(load_states, ids=ids))
            self.notify(
                {
                    ticket_id
                    for ticket_id, state in states.items()
                    if (topic := self._topics.get(ticket_id)) and topic.is_behind(state)
                }
            )

    @asynccontextmanager
    async def _topic(self, ticket_id: UUID) -> AsyncIterator[_Topic]:
        topic = self._topics.get(ticket_id)
        if topic is None:
            states = await self._load(partial(load_states, ids=[ticket_id]))
            state = states[ticket_id]
            topic = self._topics.setdefault(ticket_id, _Topic(state.seq, state.edition))
            self._has_topics.set()
            # Read what was committed before this subscriber was registered.
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
