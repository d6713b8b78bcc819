"""The feed in the schema: a page of it, and the subscription to it."""

from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from datetime import datetime
from functools import cached_property
from typing import Annotated
from uuid import UUID

import strawberry

from app.activity.cursors import FeedCursors
from app.activity.page_arguments import parse_size
from app.activity.values import parse_uuid
from app.activity.visible_changes import Begun, SeenChange
from app.graphql.connections import PageInfo, constant
from app.graphql.context import Info
from app.graphql.enums import ChangeType
from app.graphql.scalars import TicketID
from app.graphql.types import TicketActivity


@strawberry.type(
    description=(
        "A change of one entry of a ticket, as the viewer sees it. What an entry held is shown "
        "only to those who see the entry now: of one that was deleted or made private meanwhile "
        "the feed says that it is gone, and nothing else."
    )
)
class TicketActivityChange:
    cursor: str = strawberry.field(
        description="The place of the change in the feed: what comes after it is asked for by it."
    )
    change_type: ChangeType = strawberry.field(description="What the viewer sees happen.")
    activity_id: strawberry.ID = strawberry.field(description="The entry.")
    changed_at: datetime = strawberry.field(description="When it happened.")
    changed_by_id: UUID | None = strawberry.field(
        description="Who did it; null where no actor did, and when the entry is gone."
    )
    ticket_activity: TicketActivity | None = strawberry.field(
        description="The entry as the change left it; null when it is gone."
    )

    @classmethod
    def of(cls, change: SeenChange, cursors: FeedCursors) -> "TicketActivityChange":
        entry = change.recorded.activity
        is_gone = change.change_type is ChangeType.REMOVED
        return cls(
            cursor=cursors.of_change(entry.ticket_id, change.seq),
            change_type=change.change_type,
            activity_id=strawberry.ID(str(entry.id)),
            changed_at=entry.updated_at,
            changed_by_id=None if is_gone else entry.updated_by_id,
            ticket_activity=TicketActivity.of(change.activity),
        )


@strawberry.type(description="A change with its place in the feed.")
class TicketActivityChangeEdge:
    node: TicketActivityChange = strawberry.field(description="The change.")
    cursor: str = strawberry.field(description="Its place, for `after`.")


@strawberry.type(
    description=(
        "A page of the feed, the oldest change first. `pageInfo.endCursor` is how far the feed was "
        "read, also where the page is empty: the next page, or a subscription, goes on from there."
    )
)
class TicketActivityChangeConnection:
    edges: list[TicketActivityChangeEdge] = strawberry.field(
        description="The changes with their cursors."
    )
    nodes: list[TicketActivityChange] = strawberry.field(description="The changes alone.")
    page_info: PageInfo = strawberry.field(description="Where this page lies.")


async def load_change_connection(
    info: Info, ticket_id: UUID, after: str | None, first: int | None
) -> TicketActivityChangeConnection:
    context, size = info.context, parse_size(first, "first")
    cursors = context.timeline.cursors
    page = await context.view.load_changes(ticket_id, after=after, size=size)
    changes = [TicketActivityChange.of(change, cursors) for change in page.items]
    return TicketActivityChangeConnection(
        edges=[TicketActivityChangeEdge(node=change, cursor=change.cursor) for change in changes],
        nodes=changes,
        page_info=PageInfo(
            start_cursor=changes[0].cursor if changes else None,
            end_cursor=cursors.seal(ticket_id, page.end),
            has_next=constant(page.has_more),
            has_previous=constant(after is not None),
        ),
    )


@strawberry.type(
    description=(
        "An event of the subscription to a ticket's changes. The first has no change: it confirms "
        "that the subscription has begun, and where."
    )
)
class TicketActivityChangesPayload:
    ticket_id: strawberry.Private[UUID]
    event: strawberry.Private[Begun | SeenChange]
    cursors: strawberry.Private[FeedCursors]

    @property
    def key(self) -> Hashable:
        """What looks the same to all viewers of one kind: see `graphql_server.events.Payload`.

        The first event is not shared: whoever was given the same cursor twice would know that
        nothing has happened in between, nothing private either.
        """
        if isinstance(self.event, SeenChange):
            return self.ticket_id, self.event.seq, self.event.change_type
        return self.event_id

    @cached_property
    def event_id(self) -> str:
        is_change = isinstance(self.event, SeenChange)
        make = self.cursors.of_change if is_change else self.cursors.seal
        return make(self.ticket_id, self.event.seq)

    @strawberry.field(
        description="The place in the feed: when the stream is cut, subscribe again after it."
    )
    def cursor(self) -> str:
        return self.event_id

    @strawberry.field(
        description="The change; null in the first event, when nothing has happened yet."
    )
    def change(self) -> TicketActivityChange | None:
        return (
            TicketActivityChange.of(self.event, self.cursors)
            if isinstance(self.event, SeenChange)
            else None
        )


@strawberry.type(
    description=(
        "What can be followed, over WebSocket (`graphql-transport-ws`, the token in "
        "`connection_init`) or server-sent events (distinct connections). A stream that ends "
        "without a word of completion is to be resumed after the last cursor."
    )
)
class Subscription:
    @strawberry.subscription(
        description=(
            "The changes of a ticket's entries, in order and each once: those after a cursor "
            "first, then what happens. The first event has no change: it confirms that the "
            "subscription has begun. Needs the scope `activity:read`."
        )
    )
    async def ticket_activity_changes(
        self,
        info: Info,
        ticket_id: TicketID,
        after: Annotated[
            str | None,
            strawberry.argument(
                description=(
                    "Begin after this cursor: of a change, of a page of the feed, or "
                    "`Ticket.changesCursor`. Null or left out: from now on."
                )
            ),
        ] = None,
    ) -> AsyncIterator[TicketActivityChangesPayload]:
        context, ticket = info.context, parse_uuid(ticket_id, "ticketId")
        resumed = context.last_event_id or after
        followed = await context.timeline.follow_changes(context.viewer, ticket, resumed)

        async def payloads() -> AsyncIterator[TicketActivityChangesPayload]:
            async with aclosing(followed) as events:
                async for event in events:
                    yield TicketActivityChangesPayload(
                        ticket_id=ticket, event=event, cursors=context.timeline.cursors
                    )

        return payloads()
