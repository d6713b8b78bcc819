"""Decides who may see and change what, and why not. Nothing else decides that."""

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from app.activity.commands import Command, RedactActivity
from app.activity.state import (
    AUTHORED_TYPES,
    Activity,
    ActivityType,
    Redaction,
    Revision,
    TicketState,
)
from app.auth import Scope, Viewer
from app.errors import Forbidden, NotFound

_CREATABLE_TYPES = AUTHORED_TYPES | {ActivityType.VIEW}


class CannotUpdateReason(StrEnum):
    MISSING_SCOPE = "MISSING_SCOPE"
    NOT_AUTHOR = "NOT_AUTHOR"
    SYSTEM_ENTRY = "SYSTEM_ENTRY"


_EXPLANATIONS = {
    CannotUpdateReason.MISSING_SCOPE: f"the token lacks the scope {Scope.WRITE}",
    CannotUpdateReason.NOT_AUTHOR: f"entries of other actors need the scope {Scope.MODERATE}",
    CannotUpdateReason.SYSTEM_ENTRY: f"system entries need the scope {Scope.MODERATE}",
}


def require_read(viewer: Viewer) -> None:
    """Raise Forbidden unless the viewer has `activity:read`. Every use case calls this."""
    if Scope.READ not in viewer.scopes:
        raise _missing(Scope.READ)


def sees_all_private(viewer: Viewer) -> bool:
    """Return whether the viewer sees private entries of others."""
    return Scope.PRIVATE in viewer.scopes


def sight(viewer: Viewer) -> UUID | None:
    """Return a key for caches: viewers with the same key see the same entries."""
    return None if sees_all_private(viewer) else viewer.actor_id


def can_see(viewer: Viewer, activity: Activity) -> bool:
    """Return whether the viewer may see the entry. In SQL it is `store.listings.visible_to`."""
    return activity.deleted_at is None and sees_entry(
        viewer, activity.actor_id, activity.is_private
    )


def sees_entry(viewer: Viewer, actor_id: UUID | None, is_private: bool) -> bool:
    """Return whether the viewer may see entries of that actor and privacy."""
    return not is_private or actor_id == viewer.actor_id or sees_all_private(viewer)


def forgotten_seq(viewer: Viewer, ticket: TicketState) -> int:
    """Return the newest removed change that the viewer could be told of.

    Changes of private entries count for those alone who see them all: the cursors that expire would
    tell others that there was one. Whose entries they were is not kept, so they do not count for
    their authors either.
    """
    return ticket.forgotten_seq if sees_all_private(viewer) else ticket.forgotten_public_seq


def revision_as_seen(viewer: Viewer, activity: Activity, revision: Revision) -> Revision:
    """Return a revision of an entry that the viewer sees now, without what they may not see.

    What the entry held while it was private stays private when the entry is made public: the
    number, the time and the actor are shown, the content is not.
    """
    if revision.version < (activity.redacted_version or 0):
        return revision._replace(is_redacted=True)
    if sees_entry(viewer, activity.actor_id, revision.is_private):
        return revision
    return revision._replace(message=None, metadata={}, is_withheld=True)


def redaction_as_seen(viewer: Viewer, activity: Activity, redaction: Redaction) -> Redaction:
    """Return the redaction of an entry that the viewer sees now.

    The reason is withheld where the entry was private at that time, as the content would be.
    """
    if sees_entry(viewer, activity.actor_id, redaction.is_private):
        return redaction
    return redaction._replace(reason=None)


def require_visible(
    viewer: Viewer, ticket_id: UUID, activity_id: UUID, activity: Activity | None
) -> Activity:
    """Return the activity if it is on that ticket and the viewer sees it; raise NotFound if not."""
    if activity and activity.ticket_id == ticket_id and can_see(viewer, activity):
        return activity
    raise _not_found(ticket_id, activity_id)


def can_redact(viewer: Viewer) -> bool:
    """Return whether the viewer may redact any entry that they see."""
    return Scope.MODERATE in viewer.scopes


def may_redact(viewer: Viewer, commands: Sequence[Command]) -> bool:
    """Return whether something may be redacted when the commands are carried out."""
    return can_redact(viewer) and any(isinstance(one, RedactActivity) for one in commands)


def require_redact(
    viewer: Viewer, ticket_id: UUID, activity_id: UUID, activity: Activity | None
) -> Activity:
    """Return the activity, also a deleted one. Raise NotFound or Forbidden.

    For those who may not redact, a deleted entry does not exist.
    """
    if can_redact(viewer):
        return _require_seen(viewer, ticket_id, activity_id, activity)
    require_visible(viewer, ticket_id, activity_id, activity)
    raise _missing(Scope.MODERATE, "activityId")


def require_restore(
    viewer: Viewer, ticket_id: UUID, activity_id: UUID, activity: Activity | None
) -> Activity:
    """Return the activity, also a deleted one. Raise NotFound or Forbidden.

    An author may undo their own deletion, and a moderator any. For all others a deleted entry does
    not exist.
    """
    if activity is None or activity.deleted_at is None:
        activity = require_visible(viewer, ticket_id, activity_id, activity)
        require_update(viewer, activity)
        return activity
    activity = _require_seen(viewer, ticket_id, activity_id, activity)
    is_own = activity.updated_by_id == viewer.actor_id or Scope.MODERATE in viewer.scopes
    if not is_own or cannot_update_reasons(viewer, activity):
        raise _not_found(ticket_id, activity_id)
    return activity


def require_content_seen(viewer: Viewer, activity: Activity, *, was_private: bool) -> None:
    """Raise Forbidden where a version of an entry that the viewer sees now is withheld."""
    if not sees_entry(viewer, activity.actor_id, was_private):
        raise _missing(Scope.PRIVATE, "toVersion")


def _require_seen(
    viewer: Viewer, ticket_id: UUID, activity_id: UUID, activity: Activity | None
) -> Activity:
    """As `require_visible`, but a deleted entry is found by those who would see it otherwise."""
    if (
        activity
        and activity.ticket_id == ticket_id
        and sees_entry(viewer, activity.actor_id, activity.is_private)
    ):
        return activity
    raise _not_found(ticket_id, activity_id)


def _not_found(ticket_id: UUID, activity_id: UUID) -> NotFound:
    return NotFound(
        f"There is no activity {activity_id} on the ticket {ticket_id}.", path=("activityId",)
    )


def cannot_update_reasons(viewer: Viewer, activity: Activity) -> list[CannotUpdateReason]:
    """Return all reasons why the viewer may not update or delete the entry; empty if they may."""
    if Scope.MODERATE in viewer.scopes:
        return []
    reasons = {
        CannotUpdateReason.MISSING_SCOPE: Scope.WRITE not in viewer.scopes,
        CannotUpdateReason.NOT_AUTHOR: viewer.actor_id != activity.actor_id,
        CannotUpdateReason.SYSTEM_ENTRY: activity.activity_type not in AUTHORED_TYPES,
    }
    return [reason for reason, applies in reasons.items() if applies]


def require_update(viewer: Viewer, activity: Activity) -> None:
    if reasons := cannot_update_reasons(viewer, activity):
        raise _forbidden(reasons, "activityId")


def require_create(viewer: Viewer, activity_type: ActivityType) -> None:
    """Raise Forbidden unless the viewer may create entries of this type."""
    if Scope.MODERATE in viewer.scopes:
        return
    if Scope.WRITE not in viewer.scopes:
        raise _forbidden([CannotUpdateReason.MISSING_SCOPE])
    if activity_type not in _CREATABLE_TYPES:
        raise _forbidden([CannotUpdateReason.SYSTEM_ENTRY], "activityType")


def require_past(viewer: Viewer, argument: str | None) -> None:
    """Raise Forbidden unless the viewer may say when an entry was made, and by whom.

    `argument` is the name of the first such argument, None if there is none.
    """
    if argument and Scope.MODERATE not in viewer.scopes:
        raise _missing(Scope.MODERATE, argument)


def require_name_actors(viewer: Viewer) -> None:
    """Raise Forbidden unless the viewer may give names to actors."""
    if Scope.MODERATE not in viewer.scopes:
        reason = CannotUpdateReason.MISSING_SCOPE
        raise Forbidden(f"{reason}: the token lacks the scope {Scope.MODERATE}.", reasons=[reason])


def require_merge(viewer: Viewer) -> None:
    if Scope.MODERATE not in viewer.scopes:
        raise _missing(Scope.MODERATE)


def require_create_ticket(viewer: Viewer) -> None:
    require_create(viewer, ActivityType.COMMENT)


def _missing(scope: Scope, *path: str) -> Forbidden:
    reason = CannotUpdateReason.MISSING_SCOPE
    return Forbidden(f"{reason}: the token lacks the scope {scope}.", reasons=[reason], path=path)


def _forbidden(reasons: list[CannotUpdateReason], *path: str) -> Forbidden:
    message = "; ".join(f"{reason}: {_EXPLANATIONS[reason]}" for reason in reasons) + "."
    return Forbidden(message, reasons=reasons, path=path)
