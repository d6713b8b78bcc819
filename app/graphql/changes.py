"""The changes of a ticket's entries, and the connection that lists them: the feed."""

from datetime import datetime
from uuid import UUID

import strawberry

from app.activity.page_arguments import parse_size
from app.activity.visible_changes import SeenChange
from app.auth import Viewer
from app.graphql.actors import Actor, load_actor
from app.graphql.context import Info
from app.graphql.enums import ChangeType
from app.graphql.page_info import PageInfo, constant
from app.graphql.types import EdgeOrder, Ticket, TicketActivity, TicketActivityEdge, load_ticket


@strawberry.type(
    description=(
        "A change of one entry of a ticket, as the viewer sees it. An entry that was deleted or "
        "made private since is reported as gone, without what it held, whatever the filter: the "
        "feed shows content only to those who see the entry now."
    )
)
class TicketActivityChange:
    cursor: str = strawberry.field(
        description="The position of the change in the feed, to use as `after`."
    )
    change_type: ChangeType = strawberry.field(
        description="What happened to the entry in the list that the viewer follows."
    )
    activity_id: strawberry.ID = strawberry.field(description="The entry.")
    removed_ticket_activity_id: strawberry.ID | None = strawberry.field(
        description=(
            "The entry if it left the list that is followed, null otherwise: what Relay's "
            "`@deleteEdge` takes out of a connection."
        )
    )
    deleted_ticket_activity_id: strawberry.ID | None = strawberry.field(
        description=(
            "The entry if it is gone for the viewer, deleted or made private; null otherwise, "
            "also where it only ceased to pass a filter. What Relay's `@deleteRecord`, or "
            "`cache.evict` of Apollo, takes out of all lists."
        )
    )
    changed_at: datetime = strawberry.field(description="When it happened.")
    changed_by_id: UUID | None = strawberry.field(
        description="Who did it; null where no actor did, and when the entry is gone."
    )
    ticket_activity: TicketActivity | None = strawberry.field(
        description="The entry after the change; null when it is gone for the viewer."
    )
    ticket_id: strawberry.Private[UUID]

    @classmethod
    def of(cls, change: SeenChange, cursor: str, viewer: Viewer) -> "TicketActivityChange":
        entry, is_gone = change.recorded.activity, change.activity is None
        id_ = strawberry.ID(str(entry.id))
        return cls(
            cursor=cursor,
            change_type=change.change_type,
            activity_id=id_,
            removed_ticket_activity_id=id_ if change.change_type is ChangeType.REMOVED else None,
            deleted_ticket_activity_id=id_ if is_gone else None,
            changed_at=entry.updated_at,
            changed_by_id=None if is_gone else entry.updated_by_id,
            ticket_activity=TicketActivity.of(change.activity, viewer),
            ticket_id=entry.ticket_id,
        )

    @strawberry.field(
        description=(
            "Who did it, with a name; null where no actor did, and when the entry is gone."
        )
    )
    async def changed_by(self, info: Info) -> Actor | None:
        return await load_actor(info, self.changed_by_id)

    @strawberry.field(
        description=(
            "The entry with its place in a list, to put it there; null where it is not in the "
            "list that is followed."
        )
    )
    def ticket_activity_edge(self, order_by: EdgeOrder = None) -> TicketActivityEdge | None:
        is_listed = self.change_type is not ChangeType.REMOVED
        return TicketActivityEdge.of(self.ticket_activity, order_by) if is_listed else None

    @strawberry.field(
        description=(
            "The ticket as it is when it is read, which may be after later changes: for its "
            "counts. Do not select `changesCursor` here."
        )
    )
    async def ticket(self, info: Info) -> Ticket:
        return await load_ticket(info, self.ticket_id)


@strawberry.type(description="A change with its position in the feed.")
class TicketActivityChangeEdge:
    node: TicketActivityChange = strawberry.field(description="The change.")
    cursor: str = strawberry.field(description="Its position, for `after`.")


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
    page_info: PageInfo = strawberry.field(description="Where this page is in the list.")


async def load_change_connection(
    info: Info, ticket_id: UUID, after: str | None, first: int | None
) -> TicketActivityChangeConnection:
    context, size = info.context, parse_size(first, "first")
    cursors = context.timeline.cursors
    page = await context.view.load_changes(ticket_id, after=after, size=size)
    changes = [
        TicketActivityChange.of(
            change, cursors.of_change(ticket_id, change.position), context.viewer
        )
        for change in page.items
    ]
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
