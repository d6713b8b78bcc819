"""Commands, as frozen values. GraphQL and REST build them; `decide` says what they change.

`check` raises InvalidInput for what is wrong whatever the database holds. `ticket_ids` and `keys`
name the rows that the decision needs, `new_ids` the ids that the command would take.
ABSENT stands for an argument not given, None for null.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from app.activity.input_limits import (
    InputLimits,
    check_json_object,
    check_message,
    check_reason,
)
from app.activity.state import (
    ABSENT,
    FACT_TYPES,
    AbsentType,
    ActivityType,
    Key,
)
from app.activity.values import JSONObject
from app.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Past:
    """What an importer says of when an entry was made, and by whom: None and ABSENT if nothing.

    `updated_at` is when it last changed before it was imported. An `actor_id` of None stands for an
    entry that no actor made.
    """

    created_at: datetime | None = None
    updated_at: datetime | None = None
    actor_id: UUID | AbsentType | None = ABSENT

    @property
    def first_given(self) -> str | None:
        """The name of the first argument that is given, None if none is."""
        if self.created_at is not None:
            return "createdAt"
        if self.updated_at is not None:
            return "updatedAt"
        return None if self.actor_id is ABSENT else "actorId"


PRESENT: Final = Past()
"""The past of an entry that is made now, by the viewer."""


@dataclass(frozen=True, slots=True)
class CreateTicket:
    """`message`, `metadata` and `past` go into the ticket's `ticket_created` entry."""

    ticket_id: UUID
    message: str | None
    metadata: JSONObject
    past: Past = PRESENT

    @property
    def entry(self) -> "CreateActivity":
        """The first entry of the ticket. Its id follows from the ticket's, so a retry finds it."""
        return CreateActivity(
            ticket_id=self.ticket_id,
            activity_id=uuid5(self.ticket_id, ActivityType.TICKET_CREATED),
            activity_type=ActivityType.TICKET_CREATED,
            message=self.message,
            metadata=self.metadata,
            is_private=False,
            document_id=None,
            past=self.past,
        )

    @property
    def new_ids(self) -> set[UUID]:
        return {self.ticket_id, self.entry.activity_id}

    @property
    def ticket_ids(self) -> set[UUID]:
        return {self.ticket_id}

    @property
    def keys(self) -> set[Key]:
        return self.entry.keys

    def check(self, limits: InputLimits) -> None:
        check_message(self.message, limits)
        check_json_object(self.metadata, limits, "metadata")


@dataclass(frozen=True, slots=True)
class CreateActivity:
    """Adds an entry, of the caller unless `past` names another actor.

    With `allows_merged` also to a ticket that was merged into another one.
    """

    ticket_id: UUID
    activity_id: UUID
    activity_type: ActivityType
    message: str | None
    metadata: JSONObject
    is_private: bool
    document_id: UUID | None
    past: Past = PRESENT
    allows_merged: bool = False

    @property
    def new_ids(self) -> set[UUID]:
        return {self.activity_id}

    @property
    def ticket_ids(self) -> set[UUID]:
        return {self.ticket_id}

    @property
    def keys(self) -> set[Key]:
        return {(self.ticket_id, self.activity_id)}

    def check(self, limits: InputLimits) -> None:
        check_message(self.message, limits)
        check_json_object(self.metadata, limits, "metadata")
        _check_flag(self.is_private)
        check_can_be_private(self.activity_type, self.is_private)
        self._check_document()
        self._check_type()

    def _check_document(self) -> None:
        has_document = self.activity_type is ActivityType.DOCUMENT_UPLOAD
        if has_document is not (self.document_id is not None):
            raise InvalidInput(
                "documentId belongs to entries of the type document_upload, and only to those.",
                path=("documentId",),
            )

    def _check_type(self) -> None:
        if mutation := _WRITTEN_ALONE_BY.get(self.activity_type):
            raise InvalidInput(
                f"A {self.activity_type} entry is written by {mutation} alone.",
                path=("activityType",),
            )


_WRITTEN_ALONE_BY: Final = {
    ActivityType.TICKET_CREATED: "createTicket",
    ActivityType.MERGED_INTO: "mergeTickets",
    ActivityType.MERGED_FROM: "mergeTickets",
}


@dataclass(frozen=True, slots=True)
class MergeTickets:
    """Merges a ticket into another one, by an entry on each; nothing else of them changes.

    `past` goes into both entries.
    """

    source_id: UUID
    target_id: UUID
    merged_into_id: UUID
    merged_from_id: UUID
    past: Past = PRESENT

    @property
    def ticket_id(self) -> UUID:
        return self.source_id

    @property
    def new_ids(self) -> set[UUID]:
        return {self.merged_into_id, self.merged_from_id}

    @property
    def ticket_ids(self) -> set[UUID]:
        return {self.source_id, self.target_id}

    @property
    def keys(self) -> set[Key]:
        return set()

    def check(self, limits: InputLimits) -> None:  # noqa: ARG002
        if self.source_id == self.target_id:
            raise InvalidInput("A ticket cannot be merged into itself.", path=("targetId",))


@dataclass(frozen=True, slots=True)
class _Existing:
    """A command on one existing entry; see CreateActivity for `allows_merged`."""

    ticket_id: UUID
    activity_id: UUID
    allows_merged: bool = field(default=False, kw_only=True)

    @property
    def key(self) -> Key:
        return self.ticket_id, self.activity_id

    @property
    def new_ids(self) -> set[UUID]:
        return set()

    @property
    def ticket_ids(self) -> set[UUID]:
        return {self.ticket_id}

    @property
    def keys(self) -> set[Key]:
        return {self.key}


@dataclass(frozen=True, slots=True)
class UpdateActivity(_Existing):
    """`metadata` replaces the whole object, `metadata_patch` is merged into it (RFC 7396).

    `expected_versions` are the versions the caller would overwrite; None stands for any.
    `is_private`, `metadata` and `metadata_patch` hold None where the caller sent null, which
    `check` refuses.
    """

    message: str | AbsentType | None = ABSENT
    metadata: JSONObject | AbsentType | None = ABSENT
    metadata_patch: JSONObject | AbsentType | None = ABSENT
    is_private: bool | AbsentType | None = ABSENT
    expected_versions: Container[int] | None = None

    @property
    def gives_metadata(self) -> bool:
        return not (self.metadata is self.metadata_patch is ABSENT)

    @property
    def is_empty(self) -> bool:
        """Whether it asks for no change at all."""
        return self.message is self.is_private is ABSENT and not self.gives_metadata

    def may_have_made(self, version: int) -> bool:
        """Return whether it may have made `version` itself: it expects the version before that."""
        expected = self.expected_versions
        return (
            expected is not None
            and version > 1
            and version not in expected
            and version - 1 in expected
        )

    def check(self, limits: InputLimits) -> None:
        if self.message is not ABSENT:
            check_message(self.message, limits)
        if self.is_private is not ABSENT:
            _check_flag(self.is_private)
        self._check_metadata(limits)

    def _check_metadata(self, limits: InputLimits) -> None:
        if self.metadata is not ABSENT and self.metadata_patch is not ABSENT:
            raise InvalidInput(
                "metadata and metadataPatch exclude each other: replace or merge, not both.",
                path=("metadataPatch",),
            )
        if self.metadata is not ABSENT:
            check_json_object(self.metadata, limits, "metadata")
        if self.metadata_patch is not ABSENT:
            check_json_object(self.metadata_patch, limits, "metadataPatch")


@dataclass(frozen=True, slots=True)
class DeleteActivity(_Existing):
    """`expected_versions` are the versions the caller would delete; None stands for any."""

    expected_versions: Container[int] | None = None

    def check(self, limits: InputLimits) -> None:
        """Check nothing: every such command is well formed."""


@dataclass(frozen=True, slots=True)
class RedactActivity(_Existing):
    """Removes message and metadata from every version of an entry, for good.

    The operator is no actor: what they redact was redacted by nobody.
    """

    reason: str
    is_by_operator: bool = False

    def check(self, limits: InputLimits) -> None:  # noqa: ARG002
        check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class RestoreActivity(_Existing):
    """Brings back what an entry was at `to_version`, also if it is deleted by now.

    `expected_versions` are the versions the caller would overwrite; None stands for any.
    """

    to_version: int
    expected_versions: Container[int] | None = None

    def check(self, limits: InputLimits) -> None:
        """Check nothing: every such command is well formed."""


Command = (
    CreateTicket
    | CreateActivity
    | UpdateActivity
    | DeleteActivity
    | RedactActivity
    | RestoreActivity
    | MergeTickets
)


def check_can_be_private(activity_type: ActivityType, is_private: object) -> None:
    """Raise InvalidInput for a private entry of a type that everybody sees."""
    if is_private is True and activity_type in FACT_TYPES:
        raise InvalidInput(
            f"An entry of the type {activity_type} cannot be private: it states a fact of the "
            "ticket that everybody sees.",
            path=("isPrivate",),
        )


def _check_flag(value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidInput(
            "isPrivate must be true or false; leave it out to keep it.", path=("isPrivate",)
        )
