"""The root fields that write. They turn inputs into commands, and outcomes into payloads."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Protocol

import strawberry

from app.activity.commands import Command
from app.errors import Forbidden, VersionConflict
from app.errors import UserError as ServiceUserError
from app.graphql.context import MutationInfo
from app.graphql.enums import CannotUpdateReason, UserErrorCode
from app.graphql.inputs import (
    CreateTicketActivityInput,
    CreateTicketInput,
    DeleteTicketActivityInput,
    RedactTicketActivityInput,
    RestoreTicketActivityInput,
    UpdateTicketActivityInput,
)
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
    def of(cls, error: ServiceUserError) -> "UserError":
        reasons = error.reasons if isinstance(error, Forbidden) else ()
        return cls(
            code=UserErrorCode(error.code),
            message=error.message,
            path=["input", *map(str, error.path)] if error.path else None,
            reasons=[CannotUpdateReason(reason) for reason in reasons],
        )


_USER_ERRORS = "Why nothing changed; empty on success."


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


@strawberry.type(
    description=(
        "What can be written. Expected failures are data, in `userErrors`; whatever is answered "
        "without one is on disk. Every field needs the scopes `activity:read` and "
        "`activity:write`, or `activity:moderate` in place of the latter."
    )
)
class Mutation:
    @strawberry.field(description="Create a ticket, with the first entry of its timeline.")
    async def create_ticket(
        self,
        info: MutationInfo,
        input: Annotated[CreateTicketInput, strawberry.argument(description="The new ticket.")],
    ) -> CreateTicketPayload:
        result = await _submit(info, input)
        return CreateTicketPayload(
            ticket=result.ticket, ticket_activity=result.activity, user_errors=result.errors
        )

    @strawberry.field(description="Add an entry to a ticket's timeline. Its actor is the viewer.")
    async def create_ticket_activity(
        self,
        info: MutationInfo,
        input: Annotated[
            CreateTicketActivityInput, strawberry.argument(description="The new entry.")
        ],
    ) -> CreateTicketActivityPayload:
        result = await _submit(info, input)
        return CreateTicketActivityPayload(
            ticket_activity=result.activity, user_errors=result.errors
        )

    @strawberry.field(
        description=(
            "Change the message, the metadata or the privacy of an entry. An update that changes "
            "nothing succeeds and leaves no trace. So does one that its actor sends again with "
            "the same `expectedVersion`, if it made the current version and left the metadata as "
            "they were. The REST PUT does the same."
        )
    )
    async def update_ticket_activity(
        self,
        info: MutationInfo,
        input: Annotated[
            UpdateTicketActivityInput,
            strawberry.argument(description="Which entry, and what to change."),
        ],
    ) -> UpdateTicketActivityPayload:
        result = await _submit(info, input)
        return UpdateTicketActivityPayload(
            ticket_activity=result.activity, user_errors=result.errors
        )

    @strawberry.field(
        description=(
            "Delete an entry: it is gone from lists, counts, `node` and REST. The history "
            "keeps it, and its id stays in use. It succeeds again for the actor who deleted it."
        )
    )
    async def delete_ticket_activity(
        self,
        info: MutationInfo,
        input: Annotated[
            DeleteTicketActivityInput, strawberry.argument(description="Which entry.")
        ],
    ) -> DeleteTicketActivityPayload:
        result = await _submit(info, input)
        activity = result.activity
        return DeleteTicketActivityPayload(
            deleted_ticket_activity_id=activity.id if activity and not result.errors else None,
            ticket_activity=activity if result.errors else None,
            user_errors=result.errors,
        )

    @strawberry.field(
        description=(
            "Remove the message and the metadata of an entry, and of all its revisions, for good: "
            "nothing brings them back. The entry stays, with a mark that says when, by whom and "
            "why; of a merge entry `metadata.ticketId` stays too. One that holds nothing new since "
            "it was redacted is left as it is. Needs the scope `activity:moderate`."
        )
    )
    async def redact_ticket_activity(
        self,
        info: MutationInfo,
        input: Annotated[
            RedactTicketActivityInput, strawberry.argument(description="Which entry, and why.")
        ],
    ) -> RedactTicketActivityPayload:
        result = await _submit(info, input)
        activity = result.activity
        is_listed = activity is not None and activity.activity.deleted_at is None
        return RedactTicketActivityPayload(
            ticket_activity=activity if is_listed else None, user_errors=result.errors
        )

    @strawberry.field(
        description=(
            "Bring back an earlier version of an entry, or a deleted entry, as a new version. Who "
            "may update an entry may restore it; a deleted one the author who deleted it, or the "
            "scope `activity:moderate`. Merge entries are not restored."
        )
    )
    async def restore_ticket_activity(
        self,
        info: MutationInfo,
        input: Annotated[
            RestoreTicketActivityInput,
            strawberry.argument(description="Which entry, and which of its versions."),
        ],
    ) -> RestoreTicketActivityPayload:
        result = await _submit(info, input)
        return RestoreTicketActivityPayload(
            ticket_activity=result.activity, user_errors=result.errors
        )


class _Input(Protocol):
    def command(self, now: datetime) -> Command: ...


@dataclass(frozen=True, slots=True)
class _Result:
    ticket: Ticket | None
    activity: TicketActivity | None
    errors: list[UserError]


async def _submit(info: MutationInfo, input_: _Input) -> _Result:
    """Carry out a mutation. A UserError becomes data of the payload here, and nowhere else."""
    context = info.context
    try:
        outcome = await context.submit(input_.command(context.timeline.clock()))
    except ServiceUserError as error:
        current = error.current if isinstance(error, VersionConflict) else None
        return _Result(None, TicketActivity.of(current, context.viewer), [UserError.of(error)])
    activity = TicketActivity.of(outcome.activity, context.viewer)
    return _Result(Ticket.of(outcome.ticket), activity, [])
