"""What one viewer may see of one state of the database."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlmodel import Session

from app.activity import policy
from app.activity.actors import Actor
from app.activity.cursors import FeedCursors, FeedPosition, require_kept
from app.activity.listing import EVERYTHING, Listing, Page, Position, Side, Window
from app.activity.state import Activity, Redaction, Revision, Ticket, TicketState
from app.activity.visible_changes import SeenChange, as_seen
from app.auth import Viewer
from app.errors import CursorExpired, NotFound, QueryTooComplex
from app.json_text import encode_json
from app.store import history, listings, queries
from app.store.actors import load_actors
from app.store.loads import Snapshot
from app.store.timeline_cache import TimelineCache

T = TypeVar("T")

MAX_MERGED: Final = 100
"""Most tickets whose entries are listed together with those of the one they were merged into."""

SHORT_MERGE: Final = 10
"""Timelines of more merged tickets are not read on a shared connection."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """`end` is the position up to which the feed was read: where the next page begins."""

    items: list[SeenChange]
    end: FeedPosition
    has_more: bool


@dataclass(slots=True, eq=False)
class View:
    """Reads what one viewer may see, all from one snapshot of the database."""

    viewer: Viewer
    snapshot: Snapshot
    clock: Callable[[], datetime]
    cursors: FeedCursors
    cache: TimelineCache
    _loading: "dict[Hashable, asyncio.Future[Any]]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise Forbidden unless the viewer has the scope to read."""
        policy.require_read(self.viewer)

    async def find_activity(self, ticket_id: UUID, activity_id: UUID) -> Activity:
        """Return one entry. Raises NotFound, also for one that the viewer may not see."""
        [activity] = await self.load_activities([activity_id])
        return policy.require_visible(self.viewer, ticket_id, activity_id, activity)

    async def load_activities(self, ids: Sequence[UUID]) -> list[Activity | None]:
        """Return entries in the order of the ids, None where the viewer sees none."""
        found = await self.snapshot.load_many(queries.load_activities, ids)
        return [
            activity if activity and policy.can_see(self.viewer, activity) else None
            for activity in found
        ]

    async def load_tickets(self, ids: Sequence[UUID]) -> list[Ticket | None]:
        """Return tickets in the order of the ids, None where there is none."""
        return await self.snapshot.load_many(queries.load_tickets, ids)

    async def load_actors(self, ids: Sequence[UUID]) -> list[Actor | None]:
        """Return actors in the order of the ids, None where nothing is known of one."""
        return await self.snapshot.load_many(load_actors, ids)

    async def load_merged(self, ticket_id: UUID) -> tuple[TicketState, ...]:
        """Return the tickets merged into one, in the state that the snapshot has of them.

        Raises QueryTooComplex if there are too many for one timeline.
        """
        work = partial(queries.load_merged, ticket_id=ticket_id, size=MAX_MERGED + 1)
        found = await self.snapshot.load(work)
        if len(found) > MAX_MERGED:
            raise QueryTooComplex(
                f"More than {MAX_MERGED} tickets were merged into {ticket_id}, which is the limit "
                "of includeMerged."
            )
        return tuple(found)

    async def load_page(self, listing: Listing, window: Window) -> Page[Activity]:
        """Return one page of what the viewer sees of a listing."""
        work = partial(listings.load_page, viewer=self.viewer, listing=listing, window=window)
        return await self._load(listing, ("page", listing.order, window), work, _page_bytes)

    async def has_any(self, listing: Listing, *, side: Side, of: Position) -> bool:
        """Return whether the viewer sees anything on one side of a position, itself included."""
        work = partial(listings.has_any, viewer=self.viewer, listing=listing, side=side, of=of)
        return await self._load(listing, ("any", listing.order, side, of), work, _no_bytes)

    async def count_activities(self, listing: Listing) -> int:
        """Count what the viewer sees of a listing."""
        work = partial(listings.count_activities, viewer=self.viewer, listing=listing)
        return await self._load(listing, "count", work, _no_bytes)

    async def _load(
        self,
        listing: Listing,
        question: Hashable,
        work: Callable[[Session], T],
        size_of: Callable[[T], int],
    ) -> T:
        """Load something of a listing; once, also where many fields of an operation want it."""
        state = listing.state
        key = policy.sight(self.viewer), listing.wanted, question
        loading = self._loading.get((state, key))
        if loading is not None:
            found: T = await asyncio.shield(loading)
            return found
        loading = self._loading[state, key] = asyncio.get_running_loop().create_future()
        try:
            found = await self.cache.load(
                self.snapshot,
                state,
                key,
                work,
                is_long=bool(listing.wanted.words) or len(listing.merged) > SHORT_MERGE,
                size_of=size_of,
            )
        except BaseException as error:
            loading.set_exception(error)
            loading.exception()  # so that asyncio does not log it where nobody else waits
            raise
        loading.set_result(found)
        return found

    async def load_revisions(
        self, activities: Sequence[Activity], *, after: int, size: int
    ) -> list[list[Revision]]:
        """Return revisions of entries that the viewer sees now; private ones may be withheld."""
        found = await self.snapshot.load(
            partial(history.load_revisions, activities=activities, after=after, size=size)
        )
        return [
            [policy.revision_as_seen(self.viewer, activity, revision) for revision in revisions]
            for activity, revisions in zip(activities, found, strict=True)
        ]

    async def load_redactions(self, activities: Sequence[Activity]) -> list[Redaction | None]:
        """Return the last redaction of entries that the viewer sees now, None where there is none.

        Most entries have none: those are not looked up.
        """
        redacted = [activity for activity in activities if activity.redacted_version is not None]
        if not redacted:
            return [None] * len(activities)
        found = await self.snapshot.load(partial(history.load_redactions, activities=redacted))
        seen = {
            activity.id: policy.redaction_as_seen(self.viewer, activity, redaction)
            for activity, redaction in zip(redacted, found, strict=True)
            if redaction
        }
        return [seen.get(activity.id) for activity in activities]

    async def load_changes(self, ticket_id: UUID, *, after: str | None, size: int) -> FeedPage:
        """Return what the viewer sees of a ticket's changes after a cursor, the oldest first.

        Without a cursor they are those that are kept. Raises NotFound, InvalidInput and
        CursorExpired.
        """
        ticket, begin = await self.feed_position(ticket_id, after)
        if begin is None:
            valid_since = await self.snapshot.load(history.load_valid_since)
            seq = policy.forgotten_seq(self.viewer, ticket.state)
            begin = FeedPosition(seq, valid_since or ticket.created_at)
        seq = begin.seq
        seen: list[SeenChange] = []
        while changes := await self.snapshot.load(
            partial(history.load_changes, ticket_id=ticket_id, after=seq)
        ):
            seen += as_seen(self.viewer, changes, EVERYTHING)
            if len(seen) > size:
                seen = seen[:size]
                # While an operator removes old changes, those that still stand can be read.
                at = max(begin.at, seen[-1].position.at) if seen else begin.at
                end = seen[-1].seq if seen else begin.seq
                return FeedPage(seen, FeedPosition(end, at), has_more=True)
            seq = changes[-1].seq
        return FeedPage(seen, FeedPosition(seq, self.clock()), has_more=False)

    async def feed_position(
        self, ticket_id: UUID, after: str | None
    ) -> tuple[Ticket, FeedPosition | None]:
        """Return the ticket and the position of the cursor.

        Raises NotFound, InvalidInput and CursorExpired.
        """
        [ticket] = await self.load_tickets([ticket_id])
        if ticket is None:
            raise NotFound(f"There is no ticket {ticket_id}.", path=("ticketId",))
        if after is None:
            return ticket, None
        position = self.cursors.open(ticket_id, after)
        if position.seq > ticket.last_seq:
            raise CursorExpired("The database has lost the change of this cursor")
        valid_since = await self.snapshot.load(history.load_valid_since)
        require_kept(position, policy.forgotten_seq(self.viewer, ticket.state), valid_since)
        return ticket, position


def _page_bytes(page: Page[Activity]) -> int:
    """Return an estimate of the memory that a page takes."""
    return sum(
        1000 + 4 * len(activity.message or "") + 4 * len(encode_json(activity.metadata))
        for activity in page.items
    )


def _no_bytes(_answer: object) -> int:
    return 0
