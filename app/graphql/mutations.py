"""The root fields that write. They turn inputs into commands, and outcomes into payloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Protocol

import strawberry

from app.activity import state
from app.activity.actors import MAX_ACTORS
from app.activity.commands import Command
from app.activity.outcomes import Outcome
from app.activity.state import merge_target
from app.auth import Viewer
from app.errors import InvalidInput, VersionConflict
from app.errors import UserError as ServiceUserError
from app.graphql.actors import Actor
from app.graphql.context import MutationContext, MutationInfo
from app.graphql.inputs import (
    MAX_ITEMS,
    CreateTicketActivitiesInput,
    CreateTicketActivityInput,
    CreateTicketInput,
    DeleteTicketActivityInput,
    MergeTicketsInput,
    RedactTicketActivityInput,
    RestoreTicketActivityInput,
    UpdateTicketActivitiesInput,
    UpdateTicketActivityInput,
    UpsertActorsInput,
)
from app.graphql.payloads import (
    CreateTicketActivitiesPayload,
    CreateTicketActivityPayload,
    CreateTicketPayload,
    DeleteTicketActivityPayload,
    MergeTicketsPayload,
    RedactTicketActivityPayload,
    RestoreTicketActivityPayload,
    UpdateTicketActivitiesPayload,
    UpdateTicketActivityPayload,
    UpsertActorsPayload,
    UserError,
)
from app.graphql.types import Ticket, TicketActivity


@strawberry.type(
    description=(
        "What can be written. Expected failures are in `userErrors` of the payload; a write that "
        "is answered without an error is on disk. Every field needs the scopes `activity:read` "
        "and `activity:write`, or `activity:moderate` in place of the latter. A request that is "
        "sent again with the same `Idempotency-Key` (a header; over WebSocket "
        "`extensions.idempotencyKey`) gets the same answer and has no second effect."
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
            ticket=Ticket.of(result.ticket),
            ticket_activity=result.activity,
            user_errors=result.errors,
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
            "nothing succeeds and leaves no trace. An update that is sent again with the same "
            "`expectedVersion` succeeds too, if this actor's update made the current version and "
            "did not change the metadata. The REST PUT does the same."
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
            f"Add up to {MAX_ITEMS} entries as one unit of work: one COMMIT, each item decided on "
            "the state after those before it. An item that is refused does not affect the others; "
            "the `path` of its error begins with `input`, `items` and its number."
        )
    )
    async def create_ticket_activities(
        self,
        info: MutationInfo,
        input: Annotated[
            CreateTicketActivitiesInput, strawberry.argument(description="The new entries.")
        ],
    ) -> CreateTicketActivitiesPayload:
        results, errors = await _submit_all(info, input.items)
        return CreateTicketActivitiesPayload(
            results=None
            if results is None
            else [
                CreateTicketActivityPayload(
                    ticket_activity=result.activity, user_errors=result.errors
                )
                for result in results
            ],
            user_errors=errors,
        )

    @strawberry.field(
        description=(
            f"Update up to {MAX_ITEMS} entries as one unit of work, as `createTicketActivities` "
            "does. Each item may have its own `expectedVersion`."
        )
    )
    async def update_ticket_activities(
        self,
        info: MutationInfo,
        input: Annotated[
            UpdateTicketActivitiesInput,
            strawberry.argument(description="Which entries, and what to change."),
        ],
    ) -> UpdateTicketActivitiesPayload:
        results, errors = await _submit_all(info, input.items)
        return UpdateTicketActivitiesPayload(
            results=None
            if results is None
            else [
                UpdateTicketActivityPayload(
                    ticket_activity=result.activity, user_errors=result.errors
                )
                for result in results
            ],
            user_errors=errors,
        )

    @strawberry.field(
        description=(
            f"Name up to {MAX_ACTORS} actors, all or none. Needs the scope `activity:moderate`."
        )
    )
    async def upsert_actors(
        self,
        info: MutationInfo,
        input: Annotated[UpsertActorsInput, strawberry.argument(description="The actors.")],
    ) -> UpsertActorsPayload:
        context = info.context
        try:
            actors = await context.upsert_actors(input.updates())
        except ServiceUserError as error:
            return UpsertActorsPayload(actors=None, user_errors=[_user_error(context, error)])
        return UpsertActorsPayload(actors=[Actor.of(actor) for actor in actors], user_errors=[])

    @strawberry.field(
        description=(
            "Delete an entry: it is gone from lists, counts, `node` and REST. The history keeps "
            "it, and its id stays in use. A repeat succeeds for the actor who deleted it."
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
            "why; of a merge entry `metadata.ticketId` stays too. To redact it again changes "
            "nothing, unless it was given new content since. Needs the scope `activity:moderate`."
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
            "may update an entry may restore it. A deleted entry may be restored by the author "
            "who deleted it, and with the scope `activity:moderate`. Merge entries cannot be "
            "restored."
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

    @strawberry.field(
        description=(
            "Merge a ticket into another one: a `MERGED_INTO` entry on it and a `MERGED_FROM` "
            "entry on the other, both or neither. Its entries stay where they are; "
            "`Ticket.activities(includeMerged: true)` of the other lists them too. It takes writes "
            "only where they set `allowMerged`, until its `MERGED_INTO` entry is deleted, which "
            "undoes the merge. Needs the scope `activity:moderate`."
        )
    )
    async def merge_tickets(
        self,
        info: MutationInfo,
        input: Annotated[
            MergeTicketsInput, strawberry.argument(description="Which ticket, into which one.")
        ],
    ) -> MergeTicketsPayload:
        context = info.context
        try:
            outcome = await context.submit(input.command(context.timeline.clock()))
        except ServiceUserError as error:
            return MergeTicketsPayload(
                source=None,
                target=None,
                merged_into=None,
                merged_from=None,
                user_errors=[_user_error(context, error)],
            )
        return await _merged(context, outcome)


async def _merged(context: MutationContext, outcome: Outcome) -> MergeTicketsPayload:
    """Return what a merge answers; where it repeats one, without the entry on the target."""
    target_id = merge_target(outcome.activity.metadata)
    target = await context.load_ticket(target_id) if target_id else None
    second = outcome.changes[1].activity if outcome.changes else None
    return MergeTicketsPayload(
        source=Ticket.of(outcome.ticket),
        target=Ticket.of(target),
        merged_into=TicketActivity.of(outcome.activity, context.viewer),
        merged_from=TicketActivity.of(second, context.viewer),
        user_errors=[],
    )


class _Input(Protocol):
    def command(self, now: datetime) -> Command: ...


@dataclass(frozen=True, slots=True)
class _Result:
    ticket: state.Ticket | None
    activity: TicketActivity | None
    errors: list[UserError]


async def _submit(info: MutationInfo, input_: _Input) -> _Result:
    """Carry out a mutation. A UserError becomes data of the payload."""
    context = info.context
    try:
        outcome = await context.submit(input_.command(context.timeline.clock()))
    except ServiceUserError as error:
        return _refused(context, error)
    return _done(context.viewer, outcome)


async def _submit_all(
    info: MutationInfo, items: Sequence[_Input]
) -> tuple[list[_Result] | None, list[UserError]]:
    """Carry out a bulk mutation. Return a result for each item, or else why there are none."""
    context = info.context
    try:
        found = await context.submit_all(_commands(items, context.timeline.clock()))
    except ServiceUserError as error:
        return None, [_user_error(context, error)]
    viewer = context.viewer
    results = [
        _done(viewer, one) if isinstance(one, Outcome) else _refused(context, one, "items", number)
        for number, one in enumerate(found)
    ]
    return results, []


def _commands(items: Sequence[_Input], now: datetime) -> list[Command | ServiceUserError]:
    """Return the command of each item, or the error of one from which none can be built."""
    if len(items) > MAX_ITEMS:
        raise InvalidInput(
            f"items holds {len(items)} items; the limit is {MAX_ITEMS}.", path=("items",)
        )
    commands: list[Command | ServiceUserError] = []
    for item in items:
        try:
            commands.append(item.command(now))
        except ServiceUserError as error:
            commands.append(error)
    return commands


def _done(viewer: Viewer, outcome: Outcome) -> _Result:
    return _Result(outcome.ticket, TicketActivity.of(outcome.activity, viewer), [])


def _refused(context: MutationContext, error: ServiceUserError, *place: str | int) -> _Result:
    current = error.current if isinstance(error, VersionConflict) else None
    activity = TicketActivity.of(current, context.viewer)
    return _Result(None, activity, [_user_error(context, error, *place)])


def _user_error(context: MutationContext, error: ServiceUserError, *place: str | int) -> UserError:
    context.note_refused(error)
    return UserError.of(error, *place)
