"""The nodes of the schema, and the connection that leads from a ticket to its entries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

import strawberry

from app.activity import policy, state
from app.activity.cursors import FeedPosition, make_cursor
from app.activity.listing import (
    EVERYTHING,
    Filter,
    Listing,
    Order,
    Page,
    Side,
    Window,
)
from app.activity.page_arguments import parse_window
from app.auth import Viewer as AuthViewer
from app.graphql.actors import Actor, load_actor
from app.graphql.context import Info
from app.graphql.enums import ActivityType, CannotUpdateReason
from app.graphql.filters import TicketActivityFilter, TicketActivityOrder
from app.graphql.limit_descriptions import MESSAGE_LIMIT, METADATA_LIMIT
from app.graphql.page_info import PageInfo, constant
from app.graphql.revisions import (
    TicketActivityRedaction,
    TicketActivityRevisionConnection,
    load_revision_connection,
)
from app.graphql.scalars import JSONObject
from app.view import MAX_MERGED

EdgeOrder: TypeAlias = Annotated[
    TicketActivityOrder | None,
    strawberry.argument(
        description="The order of the list. Null or left out: as created, the oldest first."
    ),
]
"""The argument of fields that return one edge."""

_FIRST = "How many, at most 100. Left out or null: 20."


@strawberry.interface(description="An object that `node` finds by its id.")
class Node:
    id: strawberry.ID = strawberry.field(
        description="The UUID of the object, unique over all types. It never changes."
    )


@strawberry.type(
    description="A ticket of the CRM: what the service knows of it, which is its timeline."
)
class Ticket(Node):
    created_at: datetime = strawberry.field(description="When the ticket was created.")
    ticket_state: strawberry.Private[state.TicketState]
    merged_into_id: strawberry.Private[UUID | None]

    @strawberry.field(
        description=(
            "The position of this ticket's feed in the state that the same query reads: give it "
            "to `ticketActivityChanges` as `after` to get every later change. Select it with the "
            "first page only. With later pages it would be newer than the pages in a cache, which "
            "then miss changes. The text differs each time, also where nothing has changed."
        )
    )
    def changes_cursor(self, info: Info) -> str:
        timeline = info.context.timeline
        position = FeedPosition(self.ticket_state.seq, timeline.clock())
        return timeline.cursors.seal(UUID(self.id), position)

    @strawberry.field(
        description=(
            "The ticket this one was merged into by `mergeTickets`; null where it was not. The "
            "`MERGED_INTO` entry says when and by whom, and deleting that entry undoes the merge."
        )
    )
    async def merged_into(
        self, info: Info
    ) -> Annotated["Ticket", strawberry.lazy("app.graphql.types")] | None:
        if self.merged_into_id is None:
            return None
        return Ticket.of(await info.context.load_linked_ticket(self.merged_into_id))

    @strawberry.field(
        description=(
            "The entries of the timeline that the viewer sees, page by page. Cursors stay valid "
            "while entries are added, changed and deleted."
        )
    )
    def activities(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description=_FIRST)] = None,
        after: Annotated[
            str | None, strawberry.argument(description="List what comes after this cursor.")
        ] = None,
        last: Annotated[
            int | None,
            strawberry.argument(
                description="How many from the end, at most 100. Not together with `first`."
            ),
        ] = None,
        before: Annotated[
            str | None, strawberry.argument(description="List what comes before this cursor.")
        ] = None,
        filter: Annotated[
            TicketActivityFilter | None,
            strawberry.argument(description="Which entries. Null or left out: all."),
        ] = None,
        order_by: Annotated[
            TicketActivityOrder | None,
            strawberry.argument(
                description="In which order. Null or left out: as created, the oldest first."
            ),
        ] = None,
        include_merged: Annotated[
            bool,
            strawberry.argument(
                description=(
                    "List the entries of all tickets merged into this one too, also by way of "
                    f"others, as one timeline; of at most {MAX_MERGED} tickets. The feed of "
                    "changes stays that of each ticket."
                )
            ),
        ] = False,
    ) -> Annotated["TicketActivityConnection", strawberry.lazy("app.graphql.types")]:
        order = order_by.to_domain() if order_by else Order()
        wanted = filter.to_domain() if filter else EVERYTHING
        connection = TicketActivityConnection(
            listing=Listing(self.ticket_state, wanted, order),
            window=parse_window(order, first, after, last, before),
        )
        if not include_merged:
            return connection
        return _with_merged(info, connection)  # type: ignore[return-value] # the executor awaits it

    @classmethod
    def of(cls, ticket: state.Ticket | None) -> "Ticket | None":
        if ticket is None:
            return None
        return cls(
            id=strawberry.ID(str(ticket.id)),
            created_at=ticket.created_at,
            ticket_state=ticket.state,
            merged_into_id=ticket.merged_into_id,
        )


async def _with_merged(
    info: Info, connection: "TicketActivityConnection"
) -> "TicketActivityConnection":
    listing = connection.listing
    merged = await info.context.view.load_merged(listing.ticket_id)
    return TicketActivityConnection(
        listing=replace(listing, merged=merged), window=connection.window
    )


async def load_ticket(info: Info, id_: UUID) -> Ticket:
    """Return the ticket of an entry."""
    ticket = Ticket.of(await info.context.load_linked_ticket(id_))
    assert ticket is not None, "a foreign key holds it"  # noqa: S101
    return ticket


@strawberry.type(
    description=(
        "One entry of a ticket's timeline. A private entry is seen by its author and with the "
        "scope `activity:private`; for everybody else it does not exist."
    )
)
class TicketActivity(Node):
    activity: strawberry.Private[state.Activity]
    ticket_id: strawberry.ID = strawberry.field(description="The ticket the entry belongs to.")
    activity_type: ActivityType = strawberry.field(description="What kind of entry it is.")
    is_private: bool = strawberry.field(
        description="Whether only its author and holders of `activity:private` see it."
    )
    created_at: datetime = strawberry.field(description="When the entry was created.")
    actor_id: UUID | None = strawberry.field(
        description="Its author; null for an entry that no actor made."
    )
    message: str | None = strawberry.field(
        description=f"Its text; {MESSAGE_LIMIT}. Null where there is none."
    )
    metadata: JSONObject = strawberry.field(
        description=f"Free data of the client; {METADATA_LIMIT}."
    )
    document_id: UUID | None = strawberry.field(
        description="The uploaded document; null unless the type is `DOCUMENT_UPLOAD`."
    )
    version: int = strawberry.field(
        description=(
            "How often the entry has changed, from 1. Give it as `expectedVersion` to overwrite "
            "only what you have seen; REST's ETag is the same number."
        )
    )
    updated_at: datetime = strawberry.field(
        description="When it last changed; for a new entry, when it was created."
    )
    updated_by_id: UUID | None = strawberry.field(
        description="Who changed it last; null where no actor did."
    )
    is_edited: bool = strawberry.field(description="Whether it has changed since its creation.")

    viewer_can_update: bool = strawberry.field(
        description="Whether the viewer may update the entry."
    )
    viewer_can_delete: bool = strawberry.field(
        description="Whether the viewer may delete the entry: the rule is that of updating."
    )
    viewer_cannot_update_reasons: list[CannotUpdateReason] = strawberry.field(
        description="All that keeps the viewer from updating the entry; empty where nothing does."
    )

    @classmethod
    def of(cls, activity: state.Activity | None, viewer: AuthViewer) -> "TicketActivity | None":
        return cls.made_of(activity, viewer) if activity else None

    @classmethod
    def made_of(cls, activity: state.Activity, viewer: AuthViewer) -> "TicketActivity":
        reasons = policy.cannot_update_reasons(viewer, activity)
        return cls(
            id=strawberry.ID(str(activity.id)),
            activity=activity,
            ticket_id=strawberry.ID(str(activity.ticket_id)),
            activity_type=activity.activity_type,
            is_private=activity.is_private,
            created_at=activity.created_at,
            actor_id=activity.actor_id,
            message=activity.message,
            metadata=JSONObject(activity.metadata),
            document_id=activity.document_id,
            version=activity.version,
            updated_at=activity.updated_at,
            updated_by_id=activity.updated_by_id,
            is_edited=activity.version > 1 or activity.updated_at > activity.created_at,
            viewer_can_update=not reasons,
            viewer_can_delete=not reasons,
            viewer_cannot_update_reasons=reasons,
        )

    @strawberry.field(description="Its author, with a name; null for an entry that no actor made.")
    async def actor(self, info: Info) -> Actor | None:
        return await load_actor(info, self.actor_id)

    @strawberry.field(description="Who changed it last, with a name; null where no actor did.")
    async def updated_by(self, info: Info) -> Actor | None:
        return await load_actor(info, self.updated_by_id)

    @strawberry.field(description="The ticket the entry belongs to.")
    async def ticket(self, info: Info) -> Ticket:
        return await load_ticket(info, self.activity.ticket_id)

    @strawberry.field(
        description=(
            "When, by whom and why the entry was last redacted: its message and metadata were "
            "removed, from all its revisions too. Null where it was not, and where the operator "
            "has removed that version because it was too old."
        )
    )
    async def redaction(self, info: Info) -> TicketActivityRedaction | None:
        if self.activity.redacted_version is None:
            return None
        return TicketActivityRedaction.of(await info.context.redactions.load(self.activity))

    @strawberry.field(
        description=(
            "The versions of the entry that the history has, the oldest first: every one, unless "
            "the operator removes old ones. What a version held while the entry was private is "
            "withheld from those who would not have seen it then."
        )
    )
    def revisions(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description=_FIRST)] = None,
        after: Annotated[
            str | None, strawberry.argument(description="List what comes after this cursor.")
        ] = None,
    ) -> TicketActivityRevisionConnection:
        return load_revision_connection(  # type: ignore[return-value] # the executor awaits it
            info, self.activity, first, after
        )


@strawberry.type(description="An entry with its place in the list.")
class TicketActivityEdge:
    node: TicketActivity = strawberry.field(description="The entry.")
    cursor: str = strawberry.field(description="Its position, for `after` and `before`.")

    @classmethod
    def of(
        cls, activity: TicketActivity | None, order_by: TicketActivityOrder | None
    ) -> "TicketActivityEdge | None":
        """Return the edge of an entry in a list of that order, None for no entry."""
        if activity is None:
            return None
        order = order_by.to_domain() if order_by else Order()
        return cls(node=activity, cursor=make_cursor(order, activity.activity))


_shown_pages: "WeakKeyDictionary[Page[state.Activity], tuple[AuthViewer, list[TicketActivity]]]"
_shown_pages = WeakKeyDictionary()


def _shown(page: Page[state.Activity], viewer: AuthViewer) -> list[TicketActivity]:
    """Return the entries of a page as types of the schema, made once for a page that is kept."""
    kept = _shown_pages.get(page)
    if kept is None or kept[0] != viewer:
        kept = viewer, [TicketActivity.made_of(activity, viewer) for activity in page.items]
        _shown_pages[page] = kept
    return kept[1]


@strawberry.type(
    description=(
        "A page of the entries of a ticket. The page is read when asked for, and so is each count."
    )
)
class TicketActivityConnection:
    listing: strawberry.Private[Listing]
    window: strawberry.Private[Window]
    loading: strawberry.Private["asyncio.Task[Page[state.Activity]] | None"] = None

    async def page(self, info: Info) -> Page[state.Activity]:
        """Load the page once, whichever of the fields asks first."""
        if self.loading is None:
            context = info.context
            self.loading = asyncio.create_task(context.view.load_page(self.listing, self.window))
        return await self.loading

    @strawberry.field(description="The entries with their cursors.")
    async def edges(self, info: Info) -> list[TicketActivityEdge]:
        order = self.listing.order
        return [
            TicketActivityEdge(node=node, cursor=make_cursor(order, node.activity))
            for node in _shown(await self.page(info), info.context.viewer)
        ]

    @strawberry.field(description="The entries alone.")
    async def nodes(self, info: Info) -> list[TicketActivity]:
        return _shown(await self.page(info), info.context.viewer)

    @strawberry.field(description="Where this page is in the list.")
    async def page_info(self, info: Info) -> PageInfo:
        page, order = await self.page(info), self.listing.order
        is_backward = self.window.is_backward
        return PageInfo(
            start_cursor=make_cursor(order, page.items[0]) if page.items else None,
            end_cursor=make_cursor(order, page.items[-1]) if page.items else None,
            has_next=self._has_more(info, Side.AFTER, known=page.has_more and not is_backward),
            has_previous=self._has_more(info, Side.BEFORE, known=page.has_more and is_backward),
        )

    @strawberry.field(
        description=(
            "How many entries of the ticket the viewer sees, whatever the filter. Counted when "
            "asked for: it reads the whole timeline."
        )
    )
    async def total_count(self, info: Info) -> int:
        return await self._count(info, EVERYTHING)

    @strawberry.field(
        description="How many of them pass the filter. Counted when asked for, like `totalCount`."
    )
    async def filtered_count(self, info: Info) -> int:
        return await self._count(info, self.listing.wanted)

    async def _count(self, info: Info, wanted: Filter) -> int:
        context = info.context
        return await context.view.count_activities(replace(self.listing, wanted=wanted))

    def _has_more(self, info: Info, side: Side, *, known: bool) -> Callable[[], Awaitable[bool]]:
        """Make the answer whether anything lies on one side of the page.

        What the page did not find there can still lie beyond the cursor that ended it.
        """
        edge = self.window.before if side is Side.AFTER else self.window.after
        if known or edge is None:
            return constant(known)
        context = info.context
        return partial(context.view.has_any, self.listing, side=side, of=edge)
