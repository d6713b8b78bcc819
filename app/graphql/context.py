"""The `info.context` of resolvers: the viewer, and loaders that merge reads."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import strawberry
from sqlmodel import Session
from starlette.types import Scope
from strawberry.dataloader import DataLoader

from app.activity.actors import Actor, ActorUpdate
from app.activity.commands import Command
from app.activity.idempotency import Answer, KeyedRequest, Step
from app.activity.outcomes import Outcome
from app.activity.state import Activity, Redaction, Revision, Ticket
from app.auth import Viewer
from app.errors import CommittedUnread, DeadlineExceeded, InternalError, ServiceError, UserError
from app.http import header_value, note
from app.rate_limits import Quota
from app.store.loads import Batch, K, Snapshot, V
from app.store.long_reads import OwnSnapshot
from app.timeline import Timeline
from app.turns import Turns
from app.view import View

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Context:
    """The context of one operation.

    The reader merges loads by id that are waiting at the same time into one statement.
    `last_event_id` is where a client resumes a stream of events.
    """

    def __init__(
        self,
        timeline: Timeline,
        viewer: Viewer,
        snapshot: Snapshot,
        last_event_id: str | None = None,
        scope: Scope | None = None,
    ) -> None:
        self.timeline = timeline
        self.viewer = viewer
        self.last_event_id = last_event_id
        self._scope = scope or {}
        self.renew(snapshot)

    def renew(self, snapshot: Snapshot) -> None:
        """Forget everything that was loaded, and read from another snapshot."""
        self._snapshot = snapshot
        self._view: View | None = None
        self._written: dict[UUID, Ticket] = {}
        self._revisions: dict[tuple[int, int], DataLoader[Activity, list[Revision]]] = {}
        self._redactions: DataLoader[Activity, Redaction | None] | None = None
        self._linked_tickets: DataLoader[UUID, Ticket | None] | None = None

    @property
    def quota(self) -> Quota | None:
        """What the token has left; None where the service limits no rates."""
        quota: Quota | None = self._scope.get("state", {}).get("quota")
        return quota

    @property
    def view(self) -> View:
        """Raise Forbidden unless the viewer has the scope to read."""
        if self._view is None:
            self._view = self.timeline.view(self.viewer, self._snapshot)
        return self._view

    def revisions(self, after: int, size: int) -> "DataLoader[Activity, list[Revision]]":
        """Return the loader of one page of revisions, for all entries that ask for that page."""
        if (after, size) not in self._revisions:
            load = partial(self.view.load_revisions, after=after, size=size)
            self._revisions[after, size] = DataLoader(load, cache_key_fn=_version_key)
        return self._revisions[after, size]

    @property
    def redactions(self) -> "DataLoader[Activity, Redaction | None]":
        """Return the loader of the redactions of all entries that ask for theirs."""
        if self._redactions is None:
            load = self.view.load_redactions
            self._redactions = DataLoader(load, cache_key_fn=_version_key)
        return self._redactions

    async def load_ticket(self, id_: UUID) -> Ticket | None:
        """Return the ticket; the one that a mutation wrote needs no read."""
        if id_ in self._written:
            return self._written[id_]
        [ticket] = await self.view.load_tickets([id_])
        return ticket

    async def load_linked_ticket(self, id_: UUID) -> Ticket | None:
        """Return the ticket that an object refers to. Those of all objects are read together, once.

        For one ticket it takes longer than `load_ticket`.
        """
        if written := self._written.get(id_):
            return written
        if self._linked_tickets is None:
            self._linked_tickets = DataLoader(self._load_tickets)
        return await self._linked_tickets.load(id_)

    async def _load_tickets(self, ids: list[UUID]) -> list[Ticket | None]:
        return await self.view.load_tickets(ids)

    async def load_activity(self, id_: UUID) -> Activity | None:
        """Return the entry; None where there is none or the viewer does not see it."""
        [activity] = await self.view.load_activities([id_])
        return activity


class MutationContext(Context):
    """The context of a mutation, whose payloads are read after the write, each on its own state.

    A mutation cannot be run again as a query can, so its reads do not share a connection.
    """

    def __init__(
        self,
        timeline: Timeline,
        viewer: Viewer,
        deadline_seconds: float,
        request: KeyedRequest | None,
        scope: Scope,
    ) -> None:
        self._code: str | None = None
        self._deadline_seconds = deadline_seconds
        self._request = request
        self._steps = 0
        self._own = timeline.reader.own_snapshot(viewer.token_id, is_patient=True)
        super().__init__(timeline, viewer, self._own, scope=scope)

    async def submit(self, command: Command) -> Outcome:
        """Carry out a command. The payload then reads the state after it."""
        try:
            outcome = await self.timeline.submit(self.viewer, command, self._next_step())
        except Exception:
            await self._begin_payload(is_committed=False)
            raise
        await self._begin_payload(is_committed=True)
        self._note_written([outcome])
        return outcome

    async def submit_all(
        self, commands: Sequence[Command | UserError]
    ) -> list[Outcome | UserError]:
        """Carry out commands as one unit of work. The payload then reads the state after it."""
        try:
            steps = [step for _ in commands if (step := self._next_step())]
            found = await self.timeline.submit_all(self.viewer, commands, steps)
        except Exception:
            await self._begin_payload(is_committed=False)
            raise
        outcomes = [one for one in found if isinstance(one, Outcome)]
        await self._begin_payload(is_committed=bool(outcomes))
        self._note_written(outcomes)
        return found

    def note_refused(self, error: UserError) -> None:
        """Let the log have the code of the first error that a payload tells as data."""
        self._code = self._code or error.code
        note(self._scope, "code", self._code)

    async def upsert_actors(self, updates: Sequence[ActorUpdate]) -> list[Actor]:
        """Set names and pictures of actors; return the actors after that."""
        return await self.timeline.upsert_actors(self.viewer, updates, self._next_step())

    def _note_written(self, outcomes: Sequence[Outcome]) -> None:
        """Keep the tickets as they were written. The last outcome of a ticket is the newest."""
        for outcome in outcomes:
            self._written[outcome.ticket.id] = outcome.ticket
            self._written.update({change.ticket.id: change.ticket for change in outcome.changes})

    async def close(self) -> None:
        await self._own.close()

    def _next_step(self) -> Step | None:
        """Return the next step of a request with an idempotency key.

        Mutations run one after the other, so in a repeat a step has the same number again.
        """
        self._steps += 1
        return Step(self._request, self._steps) if self._request else None

    async def _begin_payload(self, *, is_committed: bool) -> None:
        await self._own.close()
        # The write must be reported, so the reads wait for a connection up to the deadline.
        self._own = self.timeline.reader.own_snapshot(self.viewer.token_id, is_patient=True)
        self.renew(PayloadSnapshot(self._own, self._deadline_seconds, is_committed=is_committed))


class PayloadSnapshot:
    """The state that the payload of a mutation reads, within a deadline of its own.

    If a read fails after the COMMIT, the error says that the write is stored.
    """

    def __init__(
        self, snapshot: OwnSnapshot, deadline_seconds: float, *, is_committed: bool
    ) -> None:
        self._snapshot = snapshot
        self._end = asyncio.get_running_loop().time() + deadline_seconds
        self._is_committed = is_committed

    async def load(self, work: Callable[[Session], T], *, is_long: bool = False) -> T:
        return await self._within_deadline(self._snapshot.load(work, is_long=is_long))

    async def load_many(self, batch: Batch[K, V], keys: Sequence[K]) -> list[V | None]:
        return await self._within_deadline(self._snapshot.load_many(batch, keys))

    async def _within_deadline(self, load: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(self._end):
                return await load
        except TimeoutError:
            raise self._told(DeadlineExceeded("The payload was not read in time.")) from None
        except Exception as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        if not self._is_committed:
            return error
        cause = error.code if isinstance(error, ServiceError) else InternalError.code
        if cause == InternalError.code:
            _log.error("A payload could not be read.", exc_info=error)
        return CommittedUnread(
            f"The write is committed; do not repeat it. Reading this part failed with {cause}: "
            "query it again."
        )


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes the contexts of operations. `deadline_seconds` bounds the reads of a payload."""

    timeline: Timeline
    deadline_seconds: float
    turns: Turns

    def turn(self, viewer: Viewer, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        return self.turns.run(viewer.token_id, work)

    def charge(self, viewer: Viewer, seconds: float) -> None:
        self.turns.charge(viewer.token_id, seconds)

    def query(
        self,
        scope: Scope,
        viewer: Viewer,
        execute: Callable[[object], Awaitable[T]],
    ) -> Awaitable[T]:
        """Execute a query on one state of the database; again, where its reads take long."""
        return self.timeline.reader.read(
            viewer.token_id,
            lambda snapshot: execute(Context(self.timeline, viewer, snapshot, scope=scope)),
        )

    async def mutation(
        self,
        scope: Scope,
        viewer: Viewer,
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        return await self._mutate(scope, viewer, execute, None)

    async def mutation_once(
        self,
        scope: Scope,
        viewer: Viewer,
        key: str,
        request: Sequence[object],
        execute: Callable[[object], Awaitable[bytes | T]],
    ) -> bytes | T:
        """Answer a mutation with an idempotency key, from what is kept if it is a repeat.

        An answer in bytes is kept; another one tells of errors after which a repeat may help.
        """
        keyed = await self.timeline.keyed_request(viewer, key, *request)
        if kept := await self.timeline.find_answer(keyed):
            return kept.body
        answer = await self._mutate(scope, viewer, execute, keyed)
        if isinstance(answer, bytes):
            return (await self.timeline.keep_answer(keyed, Answer(200, {}, answer))).body
        return answer

    async def _mutate(
        self,
        scope: Scope,
        viewer: Viewer,
        execute: Callable[[object], Awaitable[T]],
        request: KeyedRequest | None,
    ) -> T:
        context = MutationContext(self.timeline, viewer, self.deadline_seconds, request, scope)
        try:
            return await execute(context)
        finally:
            await context.close()

    def subscription(self, scope: Scope, viewer: Viewer) -> Context:
        """Return the context of a subscription, whose events each read a state of their own."""
        unused = self.timeline.reader.own_snapshot(viewer.token_id)
        return Context(self.timeline, viewer, unused, header_value(scope, b"last-event-id"))

    async def event(self, context: Context, execute: Callable[[], Awaitable[T]]) -> T:
        """Execute the selection of one event; again, where its reads take long."""

        async def on(snapshot: Snapshot) -> T:
            context.renew(snapshot)
            return await execute()

        token_id = context.viewer.token_id
        return await self.turns.run(token_id, self.timeline.reader.read(token_id, on))


def _version_key(activity: Activity) -> tuple[UUID, int]:
    return activity.id, activity.version


Info: TypeAlias = strawberry.Info[Context, None]
MutationInfo: TypeAlias = strawberry.Info[MutationContext, None]
