"""The use cases both doors call: authenticate, submit a command, read.

The scopes are asked for here and in the policy, so that no door can pass them by.
"""

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.activity import policy
from app.activity.commands import Command
from app.activity.decide import Outcome
from app.activity.input_limits import InputLimits
from app.activity.listing import Filter, Listing, Page, Position, Side, Window
from app.activity.state import Activity, Revision, Ticket
from app.activity.visible_changes import Begun, SeenChange, as_seen, parse_feed_cursor
from app.auth import Scope, Token, Viewer, parse_authorization
from app.errors import InvalidInput, NotFound, TooManyStreams, Unauthenticated
from app.models import AccessToken
from app.store import queries
from app.store.database import Database
from app.store.feed import Feed, load_changes
from app.store.reader import load_activities, load_tickets
from app.store.tokens import find_token
from app.store.writer import Writer

TOKEN_CACHE_TTL: Final = timedelta(seconds=2)
"""How long a token is trusted before it is looked up again; a revocation takes this long."""

_TOKEN_CACHE_SIZE: Final = 10_000
_TOKEN_USE_RESOLUTION: Final = timedelta(minutes=1)


@dataclass(slots=True)
class _KnownToken:
    row: AccessToken
    read_at: datetime
    use_recorded_at: datetime | None


@dataclass(frozen=True, slots=True)
class FeedPage:
    """`end` is the `seq` up to which the feed was read: where the next page begins."""

    items: list[SeenChange]
    end: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    database: Database
    writer: Writer
    feed: Feed
    limits: InputLimits
    clock: Callable[[], datetime]
    max_streams: int
    _streams: Counter[str] = field(default_factory=Counter)
    _known_tokens: OrderedDict[str, _KnownToken] = field(default_factory=OrderedDict)

    async def authenticate(self, authorization: str | None) -> Viewer:
        """Tell who sent an `Authorization` header. Raises Unauthenticated."""
        token = parse_authorization(authorization)
        known = await self._known_token(token)
        row = known.row
        if row.revoked_at is not None:
            raise Unauthenticated("The token has been revoked.")
        if row.expires_at is not None and row.expires_at <= self.clock():
            raise Unauthenticated("The token has expired.")
        self._record_use(known)
        scopes = frozenset(Scope(scope) for scope in row.scopes)
        return Viewer(row.actor_id, row.name, scopes, row.id)

    async def submit(self, viewer: Viewer, command: Command) -> Outcome:
        """Carry out a command; the outcome is on disk. Raises UserError or Busy."""
        policy.require_read(viewer)
        command.check(self.limits)
        return await self.writer.submit(viewer, command)

    async def find_activity(self, viewer: Viewer, ticket_id: UUID, activity_id: UUID) -> Activity:
        """Return one entry. Raises NotFound, also for one that the viewer may not see."""
        [activity] = await self.load_activities(viewer, [activity_id])
        return policy.require_visible(viewer, ticket_id, activity_id, activity)

    async def load_activities(self, viewer: Viewer, ids: Sequence[UUID]) -> list[Activity | None]:
        """Return entries in the order of the ids, None where the viewer sees none."""
        policy.require_read(viewer)
        found = await load_activities(self.database, ids)
        return [
            activity if activity and policy.can_see(viewer, activity) else None
            for activity in found
        ]

    async def load_tickets(self, viewer: Viewer, ids: Sequence[UUID]) -> list[Ticket | None]:
        """Return tickets in the order of the ids, None where there is none."""
        policy.require_read(viewer)
        return await load_tickets(self.database, ids)

    async def load_page(self, viewer: Viewer, listing: Listing, window: Window) -> Page[Activity]:
        """Return one page of what the viewer sees of a listing."""
        policy.require_read(viewer)
        return await queries.load_page(self.database, viewer, listing, window)

    async def has_any(self, viewer: Viewer, listing: Listing, *, side: Side, of: Position) -> bool:
        """Tell whether the viewer sees anything on one side of a position, itself included."""
        policy.require_read(viewer)
        return await queries.has_any(self.database, viewer, listing, side=side, of=of)

    async def count_activities(self, viewer: Viewer, ticket_id: UUID, wanted: Filter) -> int:
        """Count what the viewer sees of a timeline and passes the filter."""
        policy.require_read(viewer)
        return await queries.count_activities(self.database, viewer, ticket_id, wanted)

    async def load_revisions(
        self, viewer: Viewer, activities: Sequence[Activity], *, after: int, size: int
    ) -> list[list[Revision]]:
        """Return revisions of entries that the viewer sees now; private ones may be withheld."""
        policy.require_read(viewer)
        found = await queries.load_revisions(self.database, activities, after=after, size=size)
        return [
            [policy.revision_as_seen(viewer, activity, revision) for revision in revisions]
            for activity, revisions in zip(activities, found, strict=True)
        ]

    async def load_changes(
        self, viewer: Viewer, ticket_id: UUID, *, after: str | None, size: int
    ) -> FeedPage:
        """Return what the viewer sees of a ticket's changes after a cursor, the oldest first.

        Raises NotFound and InvalidInput.
        """
        _, seq = await self._feed_position(viewer, ticket_id, after)
        seq = seq or 0
        seen: list[SeenChange] = []
        while entries := await load_changes(self.database, ticket_id, after=seq):
            seen += as_seen(viewer, entries)
            if len(seen) > size:
                seen = seen[:size]
                return FeedPage(seen, seen[-1].seq if seen else seq, has_more=True)
            seq = entries[-1].seq
        return FeedPage(seen, seq, has_more=False)

    async def follow_changes(
        self, viewer: Viewer, ticket_id: UUID, after: str | None
    ) -> AsyncGenerator[Begun | SeenChange]:
        """Return what the viewer sees of a ticket's changes: after a cursor, or from now on.

        Where they begin comes first. Raises NotFound, InvalidInput and TooManyStreams; the stream
        raises Reconnect when the service shuts down.
        """
        ticket, seq = await self._feed_position(viewer, ticket_id, after)
        if self._streams[viewer.token_id] >= self.max_streams:
            raise TooManyStreams(
                f"The token has {self.max_streams} subscriptions open, which is the limit."
            )
        return self._follow(viewer, ticket, ticket.last_seq if seq is None else seq)

    async def _follow(
        self, viewer: Viewer, ticket: Ticket, seq: int
    ) -> AsyncGenerator[Begun | SeenChange]:
        self._streams[viewer.token_id] += 1
        try:
            yield Begun(seq)
            async with aclosing(self.feed.follow(ticket.id, seq)) as batches:
                async for entries in batches:
                    for change in as_seen(viewer, entries):
                        yield change
        finally:
            self._streams[viewer.token_id] -= 1
            if not self._streams[viewer.token_id]:
                del self._streams[viewer.token_id]

    async def _feed_position(
        self, viewer: Viewer, ticket_id: UUID, after: str | None
    ) -> tuple[Ticket, int | None]:
        """Return the ticket and the `seq` of the cursor."""
        policy.require_read(viewer)
        [ticket] = await load_tickets(self.database, [ticket_id])
        if ticket is None:
            raise NotFound(f"There is no ticket {ticket_id}.", path=("ticketId",))
        if after is None:
            return ticket, None
        seq = parse_feed_cursor(ticket_id, after)
        if seq > ticket.last_seq:
            raise InvalidInput("after is ahead of the ticket's changes.", path=("after",))
        return ticket, seq

    async def _known_token(self, token: Token) -> _KnownToken:
        known = self._known_tokens.get(token.id)
        now = self.clock()
        if known is None or not timedelta() <= now - known.read_at < TOKEN_CACHE_TTL:
            known = await self._read_token(token, now)
        if not token.matches(known.row.secret_hash):
            raise Unauthenticated("The token is not known here.")
        return known

    async def _read_token(self, token: Token, now: datetime) -> _KnownToken:
        before = self._known_tokens.pop(token.id, None)
        row = await find_token(self.database, token.id)
        if row is None:
            raise Unauthenticated("The token is not known here.")
        known = _KnownToken(row, now, before.use_recorded_at if before else row.last_used_at)
        self._known_tokens[token.id] = known
        if len(self._known_tokens) > _TOKEN_CACHE_SIZE:
            self._known_tokens.popitem(last=False)
        return known

    def _record_use(self, known: _KnownToken) -> None:
        now, recorded_at = self.clock(), known.use_recorded_at
        if recorded_at is None or now - recorded_at >= _TOKEN_USE_RESOLUTION:
            known.use_recorded_at = now
            self.writer.record_token_use(known.row.id, now)
