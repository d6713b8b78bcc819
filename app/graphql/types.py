"""The object types of the schema, each made from its value of the domain."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from app.activity import policy, state
from app.auth import Viewer as AuthViewer
from app.graphql.context import Info
from app.graphql.enums import ActivityType, CannotUpdateReason, Scope
from app.graphql.scalars import JSONObject


@strawberry.interface(description="Anything that `node` finds by its id.")
class Node:
    id: strawberry.ID = strawberry.field(
        description="The UUID of the object, unique over all types: it names it for good."
    )


@strawberry.type(description="Whoever the token of the request stands for.")
class Viewer:
    actor_id: UUID = strawberry.field(description="The actor who is recorded with every change.")
    name: str = strawberry.field(description="The name the token was given when it was issued.")
    scopes: list[Scope] = strawberry.field(description="What the token allows.")

    @classmethod
    def of(cls, viewer: AuthViewer) -> "Viewer":
        return cls(actor_id=viewer.actor_id, name=viewer.name, scopes=sorted(viewer.scopes))


@strawberry.type(description="A ticket of the CRM, as far as its timeline goes.")
class Ticket(Node):
    created_at: datetime = strawberry.field(description="When the ticket was created.")
    merged_into_id: strawberry.Private[UUID | None]

    @strawberry.field(
        description="The ticket this one was merged into; null where it was not merged."
    )
    async def merged_into(
        self, info: Info
    ) -> Annotated["Ticket", strawberry.lazy("app.graphql.types")] | None:
        if self.merged_into_id is None:
            return None
        return Ticket.of(await info.context.tickets.load(self.merged_into_id))

    @classmethod
    def of(cls, ticket: state.Ticket | None) -> "Ticket | None":
        if ticket is None:
            return None
        return cls(
            id=strawberry.ID(str(ticket.id)),
            created_at=ticket.created_at,
            merged_into_id=ticket.merged_into_id,
        )


@strawberry.type(
    description=(
        "One entry of a ticket's timeline. A private entry is seen by its author and with the "
        "scope `activity:private`; for everybody else it does not exist."
    )
)
class TicketActivity(Node):
    activity: strawberry.Private[state.Activity]
    ticket_id: UUID = strawberry.field(description="The ticket the entry belongs to.")
    activity_type: ActivityType = strawberry.field(description="What kind of entry it is.")
    is_private: bool = strawberry.field(
        description="Whether only its author and holders of `activity:private` see it."
    )
    created_at: datetime = strawberry.field(description="When the entry was created.")
    actor_id: UUID | None = strawberry.field(
        description="Its author; null for an entry that no actor made."
    )
    message: str | None = strawberry.field(
        description="Its text, at most 65,536 characters; null where there is none."
    )
    metadata: JSONObject = strawberry.field(
        description="Free data of the client, at most 64 KiB as JSON and 32 levels deep."
    )
    document_id: UUID | None = strawberry.field(
        description="The uploaded document; null unless the type is `DOCUMENT_UPLOAD`."
    )
    version: int = strawberry.field(
        description=(
            "How often the entry has changed, from 1. Give it as `expectedVersion` to overwrite "
            "only what you have seen; the REST door's ETag is the same number."
        )
    )
    updated_at: datetime = strawberry.field(
        description="When it last changed; for a new entry, when it was created."
    )
    updated_by_id: UUID | None = strawberry.field(
        description="Who changed it last; null where no actor did."
    )
    is_edited: bool = strawberry.field(description="Whether it has changed since its creation.")

    @classmethod
    def of(cls, activity: state.Activity | None) -> "TicketActivity | None":
        if activity is None:
            return None
        return cls(
            id=strawberry.ID(str(activity.id)),
            activity=activity,
            ticket_id=activity.ticket_id,
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
            is_edited=activity.version > 1,
        )

    @strawberry.field(description="The ticket the entry belongs to.")
    async def ticket(self, info: Info) -> Ticket:
        ticket = Ticket.of(await info.context.tickets.load(self.ticket_id))
        assert ticket is not None, "a foreign key holds it"  # noqa: S101
        return ticket

    @strawberry.field(description="Whether the viewer may update the entry.")
    def viewer_can_update(self, info: Info) -> bool:
        return not policy.cannot_update_reasons(info.context.viewer, self.activity)

    @strawberry.field(
        description="Whether the viewer may delete the entry: the rule is that of updating."
    )
    def viewer_can_delete(self, info: Info) -> bool:
        return not policy.cannot_update_reasons(info.context.viewer, self.activity)

    @strawberry.field(
        description="All that keeps the viewer from updating the entry; empty where nothing does."
    )
    def viewer_cannot_update_reasons(self, info: Info) -> list[CannotUpdateReason]:
        return policy.cannot_update_reasons(info.context.viewer, self.activity)
