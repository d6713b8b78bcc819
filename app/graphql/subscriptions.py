"""The subscription to the changes of a ticket, and its events."""

from collections.abc import AsyncIterator, Hashable
from functools import cached_property
from typing import Annotated
from uuid import UUID

import strawberry

from app.activity.cursors import FeedCursors
from app.activity.listing import EVERYTHING
from app.activity.values import parse_uuid
from app.activity.visible_changes import Begun, SeenChange
from app.graphql.changes import TicketActivityChange
from app.graphql.context import Info
from app.graphql.filters import TicketActivityFilter
from app.graphql.scalars import TicketID


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
        """Return the key of `graphql_server.events.Payload`: events of one key may be shared.

        A filter affects whether there is an event, and its change type, but nothing else in it.
        A redaction changes the events before it.

        The key of the first event is unique: subscribers with one cursor would learn that nothing
        happened in between, not even a private change.
        """
        if isinstance(self.event, SeenChange):
            redacted_version = self.event.recorded.activity.redacted_version
            return self.ticket_id, self.event.seq, self.event.change_type, redacted_version
        return self.event_id

    @cached_property
    def event_id(self) -> str:
        is_change = isinstance(self.event, SeenChange)
        make = self.cursors.of_change if is_change else self.cursors.seal
        return make(self.ticket_id, self.event.position)

    @strawberry.field(
        description="The position in the feed. When the stream is cut, subscribe again after it."
    )
    def cursor(self) -> str:
        return self.event_id

    @strawberry.field(
        description="The change; null in the first event, when nothing has happened yet."
    )
    def change(self, info: Info) -> TicketActivityChange | None:
        if not isinstance(self.event, SeenChange):
            return None
        return TicketActivityChange.of(self.event, self.event_id, info.context.viewer)


@strawberry.type(
    description=(
        "What can be subscribed to, over WebSocket (`graphql-transport-ws`, the token in "
        "`connection_init`) or server-sent events (distinct connections of graphql-sse). If a "
        "stream ends without `complete`, subscribe again after its last cursor."
    )
)
class Subscription:
    @strawberry.subscription(
        description=(
            "The changes of a ticket's entries, in order and each once: those after a cursor "
            "first, then what happens. The first event has no change: it confirms that the "
            "subscription has begun. `CURSOR_EXPIRED` where the operator has removed changes after "
            "the cursor because they were too old, at the beginning or while the client lags "
            "behind, or has restored the database. Needs the scope `activity:read`."
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
        filter: Annotated[
            TicketActivityFilter | None,
            strawberry.argument(
                description=(
                    "Follow the list of these entries only: an entry that begins to pass the "
                    "filter is `ADDED`, one that ceases to pass it is `REMOVED`. Null or left "
                    "out: all entries."
                )
            ),
        ] = None,
    ) -> AsyncIterator[TicketActivityChangesPayload]:
        context, ticket = info.context, parse_uuid(ticket_id, "ticketId")
        cursors = context.timeline.cursors
        return await context.timeline.follow_changes(
            context.viewer,
            ticket,
            after=context.last_event_id or after,
            wanted=filter.to_domain() if filter else EVERYTHING,
            tell=lambda event: TicketActivityChangesPayload(
                ticket_id=ticket, event=event, cursors=cursors
            ),
        )
