"""The root fields that read."""

import asyncio
from typing import Annotated

import strawberry

from app.activity.page_arguments import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from app.activity.values import parse_uuid
from app.errors import InvalidInput
from app.graphql.changes import TicketActivityChangeConnection, load_change_connection
from app.graphql.context import Info
from app.graphql.error_codes import ERRORS_DESCRIPTION
from app.graphql.scalars import TicketID
from app.graphql.types import Node, Ticket, TicketActivity
from app.graphql.viewer import RateLimit, Viewer
from app.graphql_server.complexity import ListSizes

MAX_NODES = 100

LIST_SIZES = ListSizes(DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


@strawberry.type(
    description=(
        "What can be read. Everything but `viewer` and `rateLimit` needs the scope "
        f"`activity:read`. {LIST_SIZES.cost_description}\n\n{ERRORS_DESCRIPTION}"
    )
)
class Query:
    @strawberry.field(description="The actor and the token of the request.")
    def viewer(self, info: Info) -> Viewer:
        return Viewer.of(info.context.viewer)

    @strawberry.field(
        description=(
            "What the operations of the token may still cost in this minute; null where the "
            "service sets no limit."
        )
    )
    def rate_limit(self, info: Info) -> RateLimit | None:
        return RateLimit.of(info.context.quota, info.context.timeline.clock())

    @strawberry.field(
        description="The object with that id; null if there is none or the viewer may not see it."
    )
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The `id` of the object.")],
    ) -> Node | None:
        return await _find_node(info, id)

    @strawberry.field(
        description=(
            "The objects with those ids, in their order; null for each that does not exist or "
            "that the viewer does not see."
        )
    )
    async def nodes(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(description=f"The ids of at most {MAX_NODES} objects."),
        ],
    ) -> list[Node | None]:
        if len(ids) > MAX_NODES:
            raise InvalidInput(f"ids holds {len(ids)} ids; the limit is {MAX_NODES}.")
        return await asyncio.gather(*(_find_node(info, id_) for id_ in ids))

    @strawberry.field(description="The ticket with that id; null where there is none.")
    async def ticket(
        self,
        info: Info,
        id: TicketID,
    ) -> Ticket | None:
        return Ticket.of(await info.context.load_ticket(parse_uuid(id, "id")))

    @strawberry.field(
        description=(
            "One entry of one ticket; null where it is not on that ticket or the viewer does not "
            "see it."
        )
    )
    async def ticket_activity(
        self,
        info: Info,
        ticket_id: TicketID,
        activity_id: Annotated[
            strawberry.ID, strawberry.argument(description="The id of the entry, a UUID.")
        ],
    ) -> TicketActivity | None:
        ticket = parse_uuid(ticket_id, "ticketId")
        activity = await info.context.load_activity(parse_uuid(activity_id, "activityId"))
        found = activity if activity and activity.ticket_id == ticket else None
        return TicketActivity.of(found, info.context.viewer)

    @strawberry.field(
        description=(
            "The feed of a ticket, page by page: what happened to its entries, in order, as the "
            "viewer sees it. `NOT_FOUND` where there is no such ticket, `CURSOR_EXPIRED` where the "
            "operator has removed changes after the cursor because they were too old, or has "
            "restored the database."
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
                    "List what comes after this cursor. Null or left out: from the oldest change "
                    "that is kept."
                )
            ),
        ] = None,
        first: Annotated[
            int | None,
            strawberry.argument(description="How many, at most 100. Left out or null: 20."),
        ] = None,
    ) -> TicketActivityChangeConnection:
        return await load_change_connection(info, parse_uuid(ticket_id, "ticketId"), after, first)


async def _find_node(info: Info, id_: str) -> Node | None:
    """Return the ticket or the entry with the id. An id never belongs to both."""
    try:
        key = parse_uuid(id_)
    except InvalidInput:
        return None
    ticket, activity = await asyncio.gather(
        info.context.load_ticket(key), info.context.load_activity(key)
    )
    return Ticket.of(ticket) or TicketActivity.of(activity, info.context.viewer)
