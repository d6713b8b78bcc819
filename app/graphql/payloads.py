"""What the mutations answer: what they wrote, or why they wrote nothing."""

import strawberry

from app.errors import Forbidden
from app.errors import UserError as ServiceUserError
from app.graphql.actors import Actor
from app.graphql.enums import CannotUpdateReason, UserErrorCode
from app.graphql.types import EdgeOrder, Ticket, TicketActivity, TicketActivityEdge


@strawberry.type(description="The reason why a mutation changed nothing.")
class UserError:
    code: UserErrorCode = strawberry.field(description="The kind of error, for programs.")
    message: str = strawberry.field(
        description="What is wrong, where, and which limit applies, for people."
    )
    path: list[str] | None = strawberry.field(
        description=(
            'The argument at fault, from the outside in: `["input", "metadata"]`. Null where none '
            "is, as when the token lacks a scope."
        )
    )
    reasons: list[CannotUpdateReason] = strawberry.field(
        description="On `FORBIDDEN` all the reasons; empty otherwise."
    )

    @classmethod
    def of(cls, error: ServiceUserError, *place: str | int) -> "UserError":
        """Return the error of an input, or of what is at a place of it."""
        reasons = error.reasons if isinstance(error, Forbidden) else ()
        return cls(
            code=UserErrorCode(error.code),
            message=error.message,
            path=["input", *map(str, (*place, *error.path))] if error.path else None,
            reasons=[CannotUpdateReason(reason) for reason in reasons],
        )


_USER_ERRORS = "Why nothing changed; empty on success."
_RESULTS = "The result of each item, in their order; null if the mutation failed as a whole."
_ERRORS_OF_ALL = "Why the mutation failed as a whole; each result has errors of its own."


@strawberry.type(description="What `createTicket` answers.")
class CreateTicketPayload:
    ticket: Ticket | None = strawberry.field(description="The ticket; null if the mutation failed.")
    ticket_activity: TicketActivity | None = strawberry.field(
        description="Its `TICKET_CREATED` entry; null if the mutation failed."
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)


@strawberry.type(description="What `createTicketActivity` answers.")
class CreateTicketActivityPayload:
    ticket_activity: TicketActivity | None = strawberry.field(
        description="The new entry; null if the mutation failed."
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)

    @strawberry.field(
        description=(
            "The new entry with its place in a list, to put it there; null if the mutation failed."
        )
    )
    def ticket_activity_edge(self, order_by: EdgeOrder = None) -> TicketActivityEdge | None:
        return TicketActivityEdge.of(self.ticket_activity, order_by)


@strawberry.type(description="What `updateTicketActivity` answers.")
class UpdateTicketActivityPayload:
    ticket_activity: TicketActivity | None = strawberry.field(
        description=(
            "The entry after the update. On `VERSION_CONFLICT` the entry as it is now, to merge "
            "with; null if the mutation failed otherwise."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)

    @strawberry.field(
        description="`ticketActivity` with its place in a list; null where that is null."
    )
    def ticket_activity_edge(self, order_by: EdgeOrder = None) -> TicketActivityEdge | None:
        return TicketActivityEdge.of(self.ticket_activity, order_by)


@strawberry.type(description="What `createTicketActivities` answers.")
class CreateTicketActivitiesPayload:
    results: list[CreateTicketActivityPayload] | None = strawberry.field(description=_RESULTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS_OF_ALL)


@strawberry.type(description="What `updateTicketActivities` answers.")
class UpdateTicketActivitiesPayload:
    results: list[UpdateTicketActivityPayload] | None = strawberry.field(description=_RESULTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS_OF_ALL)


@strawberry.type(description="What `deleteTicketActivity` answers.")
class DeleteTicketActivityPayload:
    deleted_ticket_activity_id: strawberry.ID | None = strawberry.field(
        description="The id of the deleted entry; null if the mutation failed."
    )
    ticket_activity: TicketActivity | None = strawberry.field(
        description="On `VERSION_CONFLICT` the entry as it is now; null otherwise."
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)


@strawberry.type(description="What `redactTicketActivity` answers.")
class RedactTicketActivityPayload:
    ticket_activity: TicketActivity | None = strawberry.field(
        description=(
            "The entry without message and metadata; null if it is deleted, or the mutation failed."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)

    @strawberry.field(
        description="`ticketActivity` with its place in a list; null where that is null."
    )
    def ticket_activity_edge(self, order_by: EdgeOrder = None) -> TicketActivityEdge | None:
        return TicketActivityEdge.of(self.ticket_activity, order_by)


@strawberry.type(description="What `restoreTicketActivity` answers.")
class RestoreTicketActivityPayload:
    ticket_activity: TicketActivity | None = strawberry.field(
        description=(
            "The entry after it was restored. On `VERSION_CONFLICT` the entry as it is now, null "
            "if it is deleted; null if the mutation failed otherwise."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)

    @strawberry.field(
        description="`ticketActivity` with its place in a list; null where that is null."
    )
    def ticket_activity_edge(self, order_by: EdgeOrder = None) -> TicketActivityEdge | None:
        return TicketActivityEdge.of(self.ticket_activity, order_by)


@strawberry.type(description="What `upsertActors` answers.")
class UpsertActorsPayload:
    actors: list[Actor] | None = strawberry.field(
        description="The actors after it, in the order given; null if the mutation failed."
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)


@strawberry.type(description="What `mergeTickets` answers.")
class MergeTicketsPayload:
    source: Ticket | None = strawberry.field(
        description="The ticket that was merged; null if the mutation failed."
    )
    target: Ticket | None = strawberry.field(
        description="The ticket it was merged into; null if the mutation failed."
    )
    merged_into: TicketActivity | None = strawberry.field(
        description="The new `MERGED_INTO` entry of the source; null if the mutation failed."
    )
    merged_from: TicketActivity | None = strawberry.field(
        description=(
            "The new `MERGED_FROM` entry of the target; null if the mutation failed, and where a "
            "repeat under an idempotency key is answered anew."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_USER_ERRORS)
