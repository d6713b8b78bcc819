"""The inputs of the mutations, and the commands that are built from them."""

from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import strawberry
from strawberry.types.unset import UnsetType

from app.activity.actors import MAX_ACTORS, MAX_NAME_LENGTH, ActorUpdate
from app.activity.commands import (
    PRESENT,
    CreateActivity,
    CreateTicket,
    DeleteActivity,
    MergeTickets,
    Past,
    RedactActivity,
    RestoreActivity,
    UpdateActivity,
)
from app.activity.input_limits import MAX_REASON_LENGTH
from app.activity.state import ABSENT, AbsentType
from app.activity.values import generate_uuid7, parse_uuid
from app.errors import InvalidInput
from app.graphql.enums import ActivityType
from app.graphql.limit_descriptions import MESSAGE_LIMIT, METADATA_LIMIT
from app.graphql.scalars import JSONObject

T = TypeVar("T")
D = TypeVar("D")

MAX_ITEMS: Final = 100
"""Most items of one bulk mutation."""

_CLIENT_ID = (
    "A UUID of your own, for safe retries: a repeat with the same content returns what exists, "
    "one with other content is `ID_TAKEN`. Left out: the service makes a UUIDv7."
)
_MESSAGE = f"Its text; {MESSAGE_LIMIT}. Null or left out: none."
_METADATA = f"Free data; {METADATA_LIMIT}."


_CREATED_AT = (
    "When it was created, for importers; not in the future. Needs the scope `activity:moderate`, "
    "as `updatedAt` and `actorId` do. Left out: now. Null is `INVALID_INPUT`. The history keeps "
    "when and by whom it was really written, as `recordedAt` and `recordedById`."
)
_UPDATED_AT = (
    "When it last changed before it is imported: not before `createdAt`, not in the future. Left "
    "out: `createdAt`. Null is `INVALID_INPUT`."
)
_ALLOW_MERGED = (
    "Set true to write to a ticket that was merged into another one; otherwise that is "
    "`TICKET_MERGED`."
)
_ACTOR = "Its author, for importers. Left out: the viewer. Null: no actor made it."


def _empty_object() -> JSONObject:
    return JSONObject({})


@strawberry.input(description="What `createTicket` takes.")
class CreateTicketInput:
    id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description=_CLIENT_ID)
    message: str | None = strawberry.field(
        default=None, description="The text of its `TICKET_CREATED` entry. Null or left out: none."
    )
    metadata: JSONObject = strawberry.field(
        default_factory=_empty_object,
        description=f"The metadata of its `TICKET_CREATED` entry. {_METADATA}",
    )
    created_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description=_CREATED_AT
    )
    updated_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description=_UPDATED_AT
    )
    actor_id: UUID | None = strawberry.field(default=strawberry.UNSET, description=_ACTOR)

    def command(self, now: datetime) -> CreateTicket:
        return CreateTicket(
            ticket_id=_client_id(self.id, now),
            message=self.message,
            metadata=self.metadata,
            past=_past(self),
        )


@strawberry.input(description="What `createTicketActivity` takes.")
class CreateTicketActivityInput:
    ticket_id: strawberry.ID = strawberry.field(description="The ticket to add the entry to.")
    id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description=_CLIENT_ID)
    activity_type: ActivityType = strawberry.field(
        description=(
            "What kind of entry it is. `TICKET_CREATED` is written by `createTicket` alone, "
            "`MERGED_INTO` and `MERGED_FROM` by `mergeTickets`; `FIELD_CHANGE` needs the scope "
            "`activity:moderate`."
        )
    )
    message: str | None = strawberry.field(default=None, description=_MESSAGE)
    metadata: JSONObject = strawberry.field(default_factory=_empty_object, description=_METADATA)
    is_private: bool = strawberry.field(
        default=False,
        description=("Whether only its author and holders of `activity:private` see it."),
    )
    document_id: UUID | None = strawberry.field(
        default=None,
        description="The uploaded document: required for `DOCUMENT_UPLOAD`, refused for others.",
    )
    created_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description=_CREATED_AT
    )
    updated_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description=_UPDATED_AT
    )
    actor_id: UUID | None = strawberry.field(default=strawberry.UNSET, description=_ACTOR)

    allow_merged: bool = strawberry.field(default=False, description=_ALLOW_MERGED)

    def command(self, now: datetime) -> CreateActivity:
        return CreateActivity(
            ticket_id=parse_uuid(self.ticket_id, "ticketId"),
            activity_id=_client_id(self.id, now),
            activity_type=self.activity_type,
            message=self.message,
            metadata=self.metadata,
            is_private=self.is_private,
            document_id=self.document_id,
            past=_past(self),
            allows_merged=self.allow_merged,
        )


@strawberry.input(
    description="What `updateTicketActivity` takes. A field that is left out stays as it is."
)
class UpdateTicketActivityInput:
    ticket_id: strawberry.ID = strawberry.field(description="The ticket the entry belongs to.")
    activity_id: strawberry.ID = strawberry.field(description="The entry to update.")
    message: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=f"The new message; {MESSAGE_LIMIT}. Left out: kept. Null: cleared.",
    )
    metadata: JSONObject | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            f"Replaces the whole object; {METADATA_LIMIT}. Left out: "
            "kept. Null is `INVALID_INPUT`; `{}` empties it. That of a `MERGED_INTO` or "
            "`MERGED_FROM` entry must go on naming the same ticket as `ticketId`."
        ),
    )
    metadata_patch: JSONObject | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Merged into the object as RFC 7396 says: a null member removes that member. The "
            "result keeps the limits of `metadata`. Not together with `metadata`. Null is "
            "`INVALID_INPUT`."
        ),
    )
    is_private: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Hides or shows the entry. Left out: kept. Null is `INVALID_INPUT`, and so is true for "
            "a `TICKET_CREATED`, `MERGED_INTO` or `MERGED_FROM` entry."
        ),
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Update only if the entry is at this version; otherwise `VERSION_CONFLICT`. Left out: "
            "whatever the version. Null is `INVALID_INPUT`."
        ),
    )

    allow_merged: bool = strawberry.field(default=False, description=_ALLOW_MERGED)

    def command(self, now: datetime) -> UpdateActivity:  # noqa: ARG002
        return UpdateActivity(
            ticket_id=parse_uuid(self.ticket_id, "ticketId"),
            activity_id=parse_uuid(self.activity_id, "activityId"),
            message=absent(self.message),
            metadata=absent(self.metadata),
            metadata_patch=absent(self.metadata_patch),
            is_private=absent(self.is_private),
            expected_versions=_expected_versions(self.expected_version),
            allows_merged=self.allow_merged,
        )


@strawberry.input(description="What `createTicketActivities` takes.")
class CreateTicketActivitiesInput:
    items: list[CreateTicketActivityInput] = strawberry.field(
        description=f"The new entries, of any tickets, at most {MAX_ITEMS}."
    )


@strawberry.input(description="What `updateTicketActivities` takes.")
class UpdateTicketActivitiesInput:
    items: list[UpdateTicketActivityInput] = strawberry.field(
        description=f"The updates, of any tickets, at most {MAX_ITEMS}."
    )


@strawberry.input(description="What to set of an actor.")
class ActorInput:
    id: UUID = strawberry.field(description="The actor.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            f"The name, at most {MAX_NAME_LENGTH} printable characters. Null clears it; left out, "
            "it stays."
        ),
    )
    avatar_url: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "The address of a picture, which begins with https:// or http://. Null clears it; "
            "left out, it stays."
        ),
    )

    def update(self) -> ActorUpdate:
        return ActorUpdate(self.id, absent(self.name), absent(self.avatar_url))


@strawberry.input(description="What `upsertActors` takes.")
class UpsertActorsInput:
    actors: list[ActorInput] = strawberry.field(
        description=f"The actors, each once, at most {MAX_ACTORS}."
    )

    def updates(self) -> list[ActorUpdate]:
        if len(self.actors) > MAX_ACTORS:
            raise InvalidInput(
                f"actors holds {len(self.actors)} actors; the limit is {MAX_ACTORS}.",
                path=("actors",),
            )
        return [actor.update() for actor in self.actors]


@strawberry.input(description="What `deleteTicketActivity` takes.")
class DeleteTicketActivityInput:
    ticket_id: strawberry.ID = strawberry.field(description="The ticket the entry belongs to.")
    activity_id: strawberry.ID = strawberry.field(description="The entry to delete.")
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Delete only if the entry is at this version; otherwise `VERSION_CONFLICT`. Left out: "
            "whatever the version. Null is `INVALID_INPUT`."
        ),
    )

    allow_merged: bool = strawberry.field(default=False, description=_ALLOW_MERGED)

    def command(self, now: datetime) -> DeleteActivity:  # noqa: ARG002
        return DeleteActivity(
            ticket_id=parse_uuid(self.ticket_id, "ticketId"),
            activity_id=parse_uuid(self.activity_id, "activityId"),
            expected_versions=_expected_versions(self.expected_version),
            allows_merged=self.allow_merged,
        )


@strawberry.input(description="What `redactTicketActivity` takes.")
class RedactTicketActivityInput:
    ticket_id: strawberry.ID = strawberry.field(description="The ticket the entry belongs to.")
    activity_id: strawberry.ID = strawberry.field(
        description="The entry to redact. It may be deleted."
    )
    reason: str = strawberry.field(
        description=(
            f"Why, for everybody who sees the entry: 1 to {MAX_REASON_LENGTH} characters. Do not "
            "repeat what is redacted."
        )
    )

    def command(self, now: datetime) -> RedactActivity:  # noqa: ARG002
        return RedactActivity(
            ticket_id=parse_uuid(self.ticket_id, "ticketId"),
            activity_id=parse_uuid(self.activity_id, "activityId"),
            reason=self.reason,
        )


@strawberry.input(description="What `restoreTicketActivity` takes.")
class RestoreTicketActivityInput:
    ticket_id: strawberry.ID = strawberry.field(description="The ticket the entry belongs to.")
    activity_id: strawberry.ID = strawberry.field(
        description="The entry to restore. It may be deleted."
    )
    to_version: int = strawberry.field(
        description=(
            "The version to bring back, with its message, metadata and privacy. `INVALID_INPUT` "
            "where there is none or a redaction removed it, `FORBIDDEN` where it is withheld from "
            "the viewer."
        )
    )
    expected_version: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Restore only if the entry is at this version; otherwise `VERSION_CONFLICT`. Left out: "
            "whatever the version. Null is `INVALID_INPUT`."
        ),
    )

    allow_merged: bool = strawberry.field(default=False, description=_ALLOW_MERGED)

    def command(self, now: datetime) -> RestoreActivity:  # noqa: ARG002
        return RestoreActivity(
            ticket_id=parse_uuid(self.ticket_id, "ticketId"),
            activity_id=parse_uuid(self.activity_id, "activityId"),
            to_version=self.to_version,
            expected_versions=_expected_versions(self.expected_version),
            allows_merged=self.allow_merged,
        )


@strawberry.input(description="What `mergeTickets` takes.")
class MergeTicketsInput:
    source_id: strawberry.ID = strawberry.field(
        description="The ticket that is merged; not yet merged into any."
    )
    target_id: strawberry.ID = strawberry.field(
        description=(
            "The ticket it is merged into, another one. If that was merged itself, it is "
            "`TICKET_MERGED`: name the one where it went."
        )
    )

    def command(self, now: datetime) -> MergeTickets:
        return MergeTickets(
            source_id=parse_uuid(self.source_id, "sourceId"),
            target_id=parse_uuid(self.target_id, "targetId"),
            merged_into_id=generate_uuid7(now),
            merged_from_id=generate_uuid7(now),
        )


def absent(value: T | UnsetType) -> T | AbsentType:
    return ABSENT if isinstance(value, UnsetType) else value


def given(value: T | UnsetType | None, default: D, *path: str) -> T | D:
    """Return the value, or the default if absent. Raise InvalidInput for null."""
    if value is None:
        raise InvalidInput(f"{path[-1]} must not be null; leave it out instead.", path=path)
    return default if isinstance(value, UnsetType) else value


def _past(given_: CreateTicketInput | CreateTicketActivityInput) -> Past:
    """Return what an importer says of the past of an entry, which most creations do not."""
    times_are_absent = given_.created_at is given_.updated_at is strawberry.UNSET
    if times_are_absent and given_.actor_id is strawberry.UNSET:
        return PRESENT
    return Past(
        created_at=given(given_.created_at, None, "createdAt"),
        updated_at=given(given_.updated_at, None, "updatedAt"),
        actor_id=absent(given_.actor_id),
    )


def _client_id(value: strawberry.ID | UnsetType | None, now: datetime) -> UUID:
    id_ = given(value, None, "id")
    return generate_uuid7(now) if id_ is None else parse_uuid(id_, "id")


def _expected_versions(value: int | UnsetType | None) -> frozenset[int] | None:
    version = given(value, None, "expectedVersion")
    return None if version is None else frozenset({version})
