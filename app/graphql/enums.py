"""The enums of the schema: those of the domain, described value by value."""

from enum import Enum
from typing import Any

import strawberry

from app.activity.listing import Direction as OrderDirection
from app.activity.listing import OrderField as TicketActivityOrderField
from app.activity.policy import CannotUpdateReason
from app.activity.state import ActivityType, ChangeType
from app.auth import Scope

__all__ = [
    "ActivityType",
    "CannotUpdateReason",
    "ChangeType",
    "OrderDirection",
    "Scope",
    "TicketActivityOrderField",
    "UserErrorCode",
]


class UserErrorCode(Enum):
    NOT_FOUND = "NOT_FOUND"
    FORBIDDEN = "FORBIDDEN"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    INVALID_INPUT = "INVALID_INPUT"
    ID_TAKEN = "ID_TAKEN"
    TICKET_MERGED = "TICKET_MERGED"


def _describe(
    enum: type[Enum], description: str, values: dict[Any, str], name: str | None = None
) -> None:
    """Make an enum of the domain an enum of the schema, with a description of every value."""
    strawberry.enum(enum, description=description, name=name)
    definition = enum.__strawberry_definition__  # type: ignore[attr-defined]
    for value in definition.values:
        value.description = values[enum[value.name]]


_describe(
    ActivityType,
    "What kind of entry it is. The REST contract writes the same names in lower case.",
    {
        ActivityType.COMMENT: "Somebody wrote a comment. Its author may change it.",
        ActivityType.VIEW: "Somebody looked at the ticket. A system entry.",
        ActivityType.FIELD_CHANGE: "A field of the ticket changed. A system entry.",
        ActivityType.DOCUMENT_UPLOAD: (
            "Somebody uploaded the document `documentId`. Its author may change it."
        ),
        ActivityType.TICKET_CREATED: "The ticket was created. A system entry, always the first.",
        ActivityType.MERGED_INTO: (
            "The ticket was merged into the one that `metadata.ticketId` names. A system entry."
        ),
        ActivityType.MERGED_FROM: "Another ticket was merged into this one. A system entry.",
    },
)
_describe(
    Scope,
    "A permission of a token.",
    {
        Scope.READ: "`activity:read`: look at tickets and entries. Everything needs it.",
        Scope.WRITE: (
            "`activity:write`: create tickets and entries; update and delete one's own comments "
            "and document uploads."
        ),
        Scope.PRIVATE: "`activity:private`: see private entries of others.",
        Scope.MODERATE: (
            "`activity:moderate`: create system entries; update and delete anybody's entries and "
            "system entries, as far as one sees them."
        ),
    },
)
_describe(
    CannotUpdateReason,
    "Why the viewer may not update or delete an entry.",
    {
        CannotUpdateReason.MISSING_SCOPE: (
            "The token lacks a scope, which the message names: `activity:read`, which everything "
            "needs, `activity:write`, or the one that the mutation needs."
        ),
        CannotUpdateReason.NOT_AUTHOR: (
            "The entry is somebody else's; that needs the scope `activity:moderate`."
        ),
        CannotUpdateReason.SYSTEM_ENTRY: (
            "The entry was written by the system; that needs the scope `activity:moderate`."
        ),
    },
)
_describe(
    UserErrorCode,
    "The expected failures of a mutation. REST has the same codes.",
    {
        UserErrorCode.NOT_FOUND: "There is no such object, or the viewer does not see it.",
        UserErrorCode.FORBIDDEN: (
            "The token does not allow it, for the reasons that the error gives."
        ),
        UserErrorCode.VERSION_CONFLICT: (
            "The entry is not at `expectedVersion`; the payload carries it as it is now."
        ),
        UserErrorCode.INVALID_INPUT: "An argument breaks a rule that the message and path name.",
        UserErrorCode.ID_TAKEN: "The id is in use with other content.",
        UserErrorCode.TICKET_MERGED: (
            "The ticket was merged into another one, which the message names."
        ),
    },
)
_describe(
    ChangeType,
    "What happened to an entry.",
    {
        ChangeType.ADDED: "It was created, became visible, or was restored after a deletion.",
        ChangeType.UPDATED: "Its message, metadata or privacy changed.",
        ChangeType.REMOVED: "It was deleted, or became invisible.",
    },
)
_describe(
    TicketActivityOrderField,
    "What the entries of a ticket can be ordered by.",
    {
        TicketActivityOrderField.CREATED_AT: "When it was created. Entries then never move.",
        TicketActivityOrderField.UPDATED_AT: "When it changed last. An update moves the entry.",
    },
    "TicketActivityOrderField",
)
_describe(
    OrderDirection,
    "The direction of an order.",
    {OrderDirection.ASC: "The oldest first.", OrderDirection.DESC: "The newest first."},
    "OrderDirection",
)
