"""The values of the domain: tickets, their activities, and changes of activities.

They are named tuples: each is made for each request, and a frozen dataclass takes three times as
long to make.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, Literal, NamedTuple
from uuid import UUID

from app.activity.values import JSONObject, parse_uuid
from app.errors import InvalidInput


class ActivityType(StrEnum):
    """The values are those of the REST contract."""

    COMMENT = "comment"
    VIEW = "view"
    FIELD_CHANGE = "field_change"
    DOCUMENT_UPLOAD = "document_upload"
    TICKET_CREATED = "ticket_created"
    MERGED_INTO = "merged_into"
    MERGED_FROM = "merged_from"


AUTHORED_TYPES: Final = frozenset({ActivityType.COMMENT, ActivityType.DOCUMENT_UPLOAD})
"""Types that an author may edit and delete. All others are system entries."""

FACT_TYPES: Final = frozenset(
    {ActivityType.TICKET_CREATED, ActivityType.MERGED_INTO, ActivityType.MERGED_FROM}
)
"""Types that state facts of the ticket, which everybody sees: they cannot be private."""

MERGE_TYPES: Final = frozenset({ActivityType.MERGED_INTO, ActivityType.MERGED_FROM})
"""Types whose metadata names another ticket as `ticketId`."""


class ChangeType(StrEnum):
    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"


class Absent(Enum):
    """The value of an argument that was not given, which is not the same as null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
AbsentType = Literal[Absent.ABSENT]


class TicketState(NamedTuple):
    """What names a state of a ticket: all that is read of one state is the same.

    Each change increases `seq`. `edition` counts what else changed its rows: erasures of actors,
    and removals of what was too old. `forgotten_seq` is the newest change that was removed,
    `forgotten_public_seq` the newest of those that everybody could be told of.
    """

    id: UUID
    seq: int
    edition: int
    forgotten_seq: int
    forgotten_public_seq: int


class Ticket(NamedTuple):
    """`last_seq` and `last_changed_at` are the `seq` and the time of the ticket's newest change.

    For `edition` and what was forgotten see TicketState.
    """

    id: UUID
    created_at: datetime
    last_seq: int
    last_changed_at: datetime
    merged_into_id: UUID | None
    edition: int = 0
    forgotten_seq: int = 0
    forgotten_public_seq: int = 0

    @property
    def state(self) -> TicketState:
        return TicketState(
            self.id, self.last_seq, self.edition, self.forgotten_seq, self.forgotten_public_seq
        )


class Activity(NamedTuple):
    """One entry of a ticket's timeline. `version` counts its changes, from 1.

    `redacted_version` is the version that the last redaction made. What the versions before it held
    is stored nowhere any more. `first_version` is the oldest one that the history still has.
    """

    ticket_id: UUID
    id: UUID
    activity_type: ActivityType
    is_private: bool
    created_at: datetime
    actor_id: UUID | None
    message: str | None
    metadata: JSONObject
    document_id: UUID | None
    version: int
    updated_at: datetime
    updated_by_id: UUID | None
    deleted_at: datetime | None = None
    redacted_version: int | None = None
    first_version: int = 1

    @property
    def key(self) -> "Key":
        return self.ticket_id, self.id


def merge_target(metadata: JSONObject) -> UUID | None:
    """Return the ticket that the metadata of a merge entry names, if it names one."""
    try:
        return parse_uuid(metadata.get("ticketId"))
    except InvalidInput:
        return None


class Change(NamedTuple):
    """One change of one activity. It becomes its new row, a row of the history and a feed event.

    `ticket` is the ticket after the change, so `ticket.last_seq` is the position of the change in
    the ticket's history. `before` is None where nothing was listed before: the entry is new or was
    deleted. `reason` is that of a redaction. `recorded_at` and `recorded_by_id` say when and by
    whom the change was really written, where that is not when and by whom it was made.
    """

    change_type: ChangeType
    ticket: Ticket
    activity: Activity
    before: Activity | None
    reason: str | None = None
    recorded_at: datetime | None = None
    recorded_by_id: UUID | None = None

    @property
    def seq(self) -> int:
        return self.ticket.last_seq

    @property
    def written_at(self) -> datetime:
        return self.recorded_at or self.activity.updated_at

    @property
    def was_private(self) -> bool | None:
        return self.before.is_private if self.before else None

    @property
    def creates_ticket(self) -> bool:
        return self.seq == 1

    @property
    def creates_activity(self) -> bool:
        return self.activity.version == 1

    @property
    def is_redaction(self) -> bool:
        return self.activity.redacted_version == self.activity.version

    @property
    def new_ids(self) -> set[UUID]:
        """The ids that are in use from this change on."""
        if not self.creates_activity:
            return set()
        return {self.activity.id} | ({self.ticket.id} if self.creates_ticket else set())


class Revision(NamedTuple):
    """One version of an activity, from the history.

    `is_withheld` is set where the content was private and is not shown to the viewer. `is_redacted`
    is set where it was removed for good. For the rest see Change.
    """

    activity_id: UUID
    version: int
    change_type: ChangeType
    changed_at: datetime
    changed_by_id: UUID | None
    message: str | None
    metadata: JSONObject
    is_private: bool
    recorded_at: datetime | None
    recorded_by_id: UUID | None
    is_withheld: bool = False
    is_redacted: bool = False


class Redaction(NamedTuple):
    """The change that removed what an activity held, and why. `reason` is None if withheld."""

    activity_id: UUID
    version: int
    changed_at: datetime
    changed_by_id: UUID | None
    is_private: bool
    reason: str | None


class Content(NamedTuple):
    """What a version of an activity held."""

    message: str | None
    metadata: JSONObject
    is_private: bool


Key = tuple[UUID, UUID]
"""What identifies an activity: the id of its ticket, then its own."""

VersionKey = tuple[Key, int]


@dataclass(slots=True)
class State:
    """The rows that the commands of one unit of work need, as read inside its transaction.

    `ids_in_use` are those of the ids named for creation that a ticket or an entry already has.
    `versions` are earlier versions that a command may need: a creation under an id in use is
    compared with the first one, a restoration brings one back.
    """

    tickets: dict[UUID, Ticket]
    activities: dict[Key, Activity]
    versions: dict[VersionKey, Content]
    ids_in_use: set[UUID]

    def apply(self, change: Change) -> None:
        """Apply a change, so that the next commands of the batch are decided on it.

        Raises ValueError for a creation under an id in use, before anything is applied: storing it
        would overwrite a row.
        """
        activity = change.activity
        if change.creates_activity:
            if not self.ids_in_use.isdisjoint(change.new_ids):
                raise ValueError("a decision created what exists already")
            self.ids_in_use |= change.new_ids
        self.versions[activity.key, activity.version] = Content(
            activity.message, activity.metadata, activity.is_private
        )
        self.tickets[change.ticket.id] = change.ticket
        self.activities[activity.key] = activity
