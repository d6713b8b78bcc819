"""The use cases that GraphQL and REST call: submit a command, read, follow.

Scopes are checked here and in the policy, so that neither API can bypass them.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlmodel import Session

from app.activity import policy
from app.activity.actors import Actor, ActorUpdate, check_actors
from app.activity.commands import Command
from app.activity.cursors import FeedCursors, FeedPosition
from app.activity.idempotency import Answer, KeyedRequest, Step
from app.activity.input_limits import InputLimits
from app.activity.listing import Filter
from app.activity.outcomes import Outcome
from app.activity.visible_changes import Begun, RecordedChange, SeenChange, as_seen
from app.auth import Viewer
from app.errors import (
    CursorExpired,
    ServiceError,
    TooManyStreams,
    UserError,
)
from app.store.actors import hold_actors, upsert_actors
from app.store.feed import Feed
from app.store.history import load_cursor_key
from app.store.idempotency import has_come_before, load_answer
from app.store.key_sweeper import KeySweeper
from app.store.loads import Snapshot
from app.store.reader import Reader
from app.store.timeline_cache import TimelineCache
from app.store.unit_of_work import Verdict
from app.store.writer import Writer
from app.view import View

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Timeline:
    """The use cases: submit a command, read, follow. Call `open` before the first of them.

    `max_streams` is how many subscriptions one token may have open in this process.
    """

    reader: Reader
    writer: Writer
    feed: Feed
    limits: InputLimits
    clock: Callable[[], datetime]
    max_streams: int
    cache: TimelineCache
    sweeper: KeySweeper
    cursors: FeedCursors = field(init=False)
    _streams: Counter[str] = field(default_factory=Counter)
    _matching: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def stream_count(self) -> int:
        """How many subscriptions are open."""
        return sum(self._streams.values())

    async def open(self) -> None:
        """Read the key of feed cursors from the database."""
        self.cursors = FeedCursors(await self.reader.database.read(load_cursor_key))

    async def submit(self, viewer: Viewer, command: Command, step: Step | None = None) -> Outcome:
        """Carry out a command, once if it is a step. Return once the outcome is on disk.

        Raises UserError, Busy, StorageFull, StorageUnwritable, WriteInDoubt and
        IdempotencyKeyReused.
        """
        policy.require_read(viewer)
        command.check(self.limits)
        await self._prepare(viewer, [command])
        return await self.writer.submit(viewer, command, step)

    async def upsert_actors(
        self, viewer: Viewer, updates: Sequence[ActorUpdate], step: Step | None = None
    ) -> list[Actor]:
        """Set names and pictures of actors, all or none, once if it is a step. Return the actors.

        Raises Forbidden, InvalidInput, Busy, StorageFull, StorageUnwritable, WriteInDoubt and
        IdempotencyKeyReused.
        """
        policy.require_read(viewer)
        policy.require_name_actors(viewer)
        check_actors(updates)
        upsert = partial(upsert_actors, now=self.clock())
        work = partial(upsert, updates=updates)
        if step is None:
            return await self.writer.run_chore(work, hold_actors)
        nothing = [ActorUpdate(update.id) for update in updates]
        again = partial(upsert, updates=nothing)
        return await self.writer.run_step(step, work, again, hold_actors)

    async def keyed_request(self, viewer: Viewer, key: str, *request: object) -> KeyedRequest:
        """Return a request with an idempotency key, given as JSON values.

        Raises InvalidInput, and TooManyIdempotencyKeys unless it is a repeat.
        """
        keyed = KeyedRequest.of(viewer, key, *request)
        if refusal := self.sweeper.refusal(keyed.owner):
            is_repeat = partial(has_come_before, request=keyed)
            if not await self._read_keys(keyed.owner, is_repeat):
                raise refusal
        return keyed

    async def find_answer(self, request: KeyedRequest) -> Answer | None:
        """Return the answer that is kept. Raises IdempotencyKeyReused and Busy."""
        return await self._read_keys(request.owner, partial(load_answer, request=request))

    async def _read_keys(self, owner: str, work: Callable[[Session], T]) -> T:
        return await self.reader.read(owner, lambda snapshot: snapshot.load(work))

    async def keep_answer(self, request: KeyedRequest, answer: Answer) -> Answer:
        """Keep the answer to a request whose steps are done, and return what to answer.

        That is the answer that was kept first. One that cannot be kept is right all the same.
        """
        try:
            return await self.writer.keep_answer(request, answer)
        except ServiceError as error:
            _log.warning("The answer to a request was not kept: %s", error.message)
            return answer

    async def submit_all(
        self,
        viewer: Viewer,
        commands: Sequence[Command | UserError],
        steps: Sequence[Step] = (),
    ) -> list[Outcome | UserError]:
        """Carry out commands as one unit of work; return the outcome or the error of each.

        `steps` has one for each command, or none: a command that is a step is carried out once.

        An error in place of a command, which could not be built, is returned as it is. Raises
        Forbidden, Busy, StorageFull and StorageUnwritable, and then nothing is written, and
        WriteInDoubt.
        """
        policy.require_read(viewer)
        attempts = [self._checked(command) for command in commands]
        good = [attempt for attempt in attempts if not isinstance(attempt, UserError)]
        taken = [
            step
            for step, attempt in zip(steps, attempts, strict=False)
            if not isinstance(attempt, UserError)
        ]
        await self._prepare(viewer, good)
        verdicts = iter(await self.writer.submit_all(viewer, good, taken) if good else ())
        return [
            attempt if isinstance(attempt, UserError) else _expected(next(verdicts))
            for attempt in attempts
        ]

    async def _prepare(self, viewer: Viewer, commands: Sequence[Command]) -> None:
        """Make short the unit of work of commands that redact."""
        if policy.may_redact(viewer, commands):
            await self.sweeper.forget_answers()

    def _checked(self, command: Command | UserError) -> Command | UserError:
        try:
            if not isinstance(command, UserError):
                command.check(self.limits)
        except UserError as error:
            return error
        return command

    def view(self, viewer: Viewer, snapshot: Snapshot) -> View:
        """Return what a viewer sees of a snapshot. Raises Forbidden."""
        return View(viewer, snapshot, self.clock, self.cursors, self.cache)

    async def read(self, viewer: Viewer, look: Callable[[View], Awaitable[T]]) -> T:
        """Return what `look` returns for a view of one snapshot. `look` may be called twice.

        Raises Forbidden, Busy and what the function raises.
        """
        return await self.reader.read(
            viewer.token_id, lambda snapshot: look(self.view(viewer, snapshot))
        )

    async def follow_changes(
        self,
        viewer: Viewer,
        ticket_id: UUID,
        *,
        after: str | None,
        wanted: Filter,
        tell: Callable[[Begun | SeenChange], T],
    ) -> AsyncGenerator[T]:
        """Return the changes that the viewer sees and that pass the filter: after a cursor, or new.

        The items are what `tell` makes of Begun, which is first, and of each change. Raises
        NotFound, InvalidInput and TooManyStreams; the stream raises CursorExpired, also instead of
        its first item, and Reconnect when the service shuts down.
        """
        try:
            ticket, begin = await self.read(
                viewer, lambda view: view.feed_position(ticket_id, after)
            )
        except CursorExpired as error:
            # Within the stream: a request that is refused graphql-sse would send again and again.
            return _failing(error)
        if self._streams[viewer.token_id] >= self.max_streams:
            raise TooManyStreams(
                f"The token has {self.max_streams} subscriptions open, which is the limit."
            )
        begin = begin or FeedPosition(ticket.last_seq, self.clock())
        return self._follow(viewer, ticket_id, begin, wanted, tell)

    async def _follow(
        self,
        viewer: Viewer,
        ticket_id: UUID,
        begin: FeedPosition,
        wanted: Filter,
        tell: Callable[[Begun | SeenChange], T],
    ) -> AsyncGenerator[T]:
        self._streams[viewer.token_id] += 1
        try:
            yield tell(Begun(begin))
            async with aclosing(self.feed.follow(ticket_id, begin.seq, viewer)) as batches:
                async for changes in batches:
                    if wanted.text is None:
                        seen = as_seen(viewer, changes, wanted)
                    else:
                        seen = await self._search(viewer, changes, wanted)
                    for change in seen:
                        yield tell(change)
        finally:
            self._streams[viewer.token_id] -= 1
            if not self._streams[viewer.token_id]:
                del self._streams[viewer.token_id]

    async def _search(
        self, viewer: Viewer, changes: Sequence[RecordedChange], wanted: Filter
    ) -> list[SeenChange]:
        """As `as_seen`. Looking for words in long messages can take long.

        So one subscriber does it at a time, and the event loop serves everybody else in between.
        """
        async with self._matching:
            await asyncio.sleep(0)
            return as_seen(viewer, changes, wanted)


async def _failing(error: CursorExpired) -> AsyncGenerator[Any]:
    raise error
    yield


def _expected(verdict: Verdict) -> Outcome | UserError:
    """Return the verdict on a command; raise it if it is a fault."""
    if isinstance(verdict, Outcome | UserError):
        return verdict
    raise verdict
