"""Decides what a command changes, or which error it gets.

Pure: it reads nothing but its arguments and mutates nothing. A command that fails does not affect
the other commands of the same unit of work.
"""

from datetime import datetime
from typing import assert_never

from app.activity import policy
from app.activity.commands import (
    Command,
    CreateActivity,
    CreateTicket,
    DeleteActivity,
    MergeTickets,
    RedactActivity,
    RestoreActivity,
    UpdateActivity,
    check_can_be_private,
)
from app.activity.creations import create_activity, create_ticket, merge_tickets
from app.activity.input_limits import InputLimits, check_json_object
from app.activity.merge_patch import merge_patch
from app.activity.outcomes import Outcome, changed, holds_same, require_not_merged
from app.activity.state import (
    ABSENT,
    MERGE_TYPES,
    Activity,
    ActivityType,
    Content,
    State,
    Ticket,
    merge_target,
)
from app.activity.values import JSONObject, is_same_json
from app.auth import Viewer
from app.errors import InvalidInput, VersionConflict


def decide(
    state: State, command: Command, viewer: Viewer, now: datetime, limits: InputLimits
) -> Outcome:
    """Return the outcome of a command. Raise a UserError if it is forbidden or impossible."""
    for ticket_id in command.ticket_ids:
        now = _not_before_last_change(state.tickets.get(ticket_id), now)
    match command:
        case UpdateActivity():
            return _update_activity(state, command, viewer, now, limits)
        case DeleteActivity():
            return _delete_activity(state, command, viewer, now)
        case RedactActivity():
            return _redact_activity(state, command, viewer, now)
        case RestoreActivity():
            return _restore_activity(state, command, viewer, now)
        case CreateActivity():
            return create_activity(state, command, viewer, now)
        case CreateTicket():
            return create_ticket(state, command, viewer, now)
        case MergeTickets():
            return merge_tickets(state, command, viewer, now)
        case _:
            assert_never(command)


def _not_before_last_change(ticket: Ticket | None, now: datetime) -> datetime:
    """Return the time of a change: `now`, but never before the ticket's last change.

    The system clock may step back.
    """
    return max(now, ticket.last_changed_at) if ticket else now


def _update_activity(
    state: State, command: UpdateActivity, viewer: Viewer, now: datetime, limits: InputLimits
) -> Outcome:
    activity = policy.require_visible(
        viewer, command.ticket_id, command.activity_id, state.activities.get(command.key)
    )
    policy.require_update(viewer, activity)
    may_be_repeated = _may_be_repeated(state, command, activity, viewer)
    if not may_be_repeated:
        _require_version(command, activity)
    updated = activity._replace(
        message=activity.message if command.message is ABSENT else command.message,
        metadata=_updated_metadata(activity.metadata, command, limits),
        is_private=activity.is_private
        if command.is_private is ABSENT
        else bool(command.is_private),
    )
    check_can_be_private(activity.activity_type, command.is_private)
    if holds_same(activity, updated):
        return Outcome(state.tickets[activity.ticket_id], activity)
    if may_be_repeated:
        _require_version(command, activity)
    _require_same_merge(activity, updated)
    require_not_merged(state, command)
    return changed(state, activity, updated, viewer.actor_id, now)


def _may_be_repeated(
    state: State, command: UpdateActivity, activity: Activity, viewer: Viewer
) -> bool:
    """Return whether the update may be the one that made this version, sent again.

    If the entry holds already what it asks for, it succeeds in spite of its `expected_versions`,
    as RFC 9110 section 13.1.1 allows: its first answer may have been lost. But not if it is about
    metadata, which programs use for counters and locks: two of them that share a token and write
    the same value are not one that repeats itself, and the second must learn that it came late.
    """
    return (
        command.may_have_made(activity.version)
        and activity.updated_by_id == viewer.actor_id
        and not command.is_empty
        and (not command.gives_metadata or _kept_metadata(state, activity))
    )


def _kept_metadata(state: State, activity: Activity) -> bool:
    """Return whether the change that made this version left the metadata as they were."""
    before = state.versions.get((activity.key, activity.version - 1))
    return before is not None and is_same_json(before.metadata, activity.metadata)


def _delete_activity(
    state: State, command: DeleteActivity, viewer: Viewer, now: datetime
) -> Outcome:
    found = state.activities.get(command.key)
    if found and _has_deleted(viewer, found, command):
        return Outcome(state.tickets[found.ticket_id], found)
    activity = policy.require_visible(
        viewer, command.ticket_id, command.activity_id, state.activities.get(command.key)
    )
    policy.require_update(viewer, activity)
    _require_version(command, activity)
    if activity.activity_type is not ActivityType.MERGED_INTO:  # its deletion undoes the merge
        require_not_merged(state, command)
    return changed(state, activity, activity._replace(deleted_at=now), viewer.actor_id, now)


def _has_deleted(viewer: Viewer, activity: Activity, command: DeleteActivity) -> bool:
    """Return whether the viewer has deleted the entry, and may be asking for that again."""
    return (
        activity.deleted_at is not None
        and activity.updated_by_id == viewer.actor_id
        and policy.sees_entry(viewer, activity.actor_id, activity.is_private)
        and not policy.cannot_update_reasons(viewer, activity)
        and (command.expected_versions is None or activity.version - 1 in command.expected_versions)
    )


def _redact_activity(
    state: State, command: RedactActivity, viewer: Viewer, now: datetime
) -> Outcome:
    activity = policy.require_redact(
        viewer, command.ticket_id, command.activity_id, state.activities.get(command.key)
    )
    if activity.redacted_version == activity.version:
        return Outcome(state.tickets[activity.ticket_id], activity)
    redacted = activity._replace(
        message=None,
        metadata=_without_free_data(activity),
        redacted_version=activity.version + 1,
    )
    by = None if command.is_by_operator else viewer.actor_id
    return changed(state, activity, redacted, by, now, command.reason)


def _without_free_data(activity: Activity) -> JSONObject:
    """Return the metadata that a redaction leaves: which ticket a merge is with is a fact."""
    other = merge_target(activity.metadata) if activity.activity_type in MERGE_TYPES else None
    return {"ticketId": str(other)} if other else {}


def _restore_activity(
    state: State, command: RestoreActivity, viewer: Viewer, now: datetime
) -> Outcome:
    activity = policy.require_restore(
        viewer, command.ticket_id, command.activity_id, state.activities.get(command.key)
    )
    _require_version(command, activity)
    content = _restorable(state, activity, command.to_version)
    policy.require_content_seen(viewer, activity, was_private=content.is_private)
    restored = activity._replace(
        message=content.message,
        metadata=content.metadata,
        is_private=content.is_private,
        deleted_at=None,
    )
    if activity.deleted_at is None and holds_same(activity, restored):
        return Outcome(state.tickets[activity.ticket_id], activity)
    require_not_merged(state, command)
    return changed(state, activity, restored, viewer.actor_id, now)


def _restorable(state: State, activity: Activity, version: int) -> Content:
    """Return what a version held. Raise InvalidInput if it cannot come back."""
    content = state.versions.get((activity.key, version))
    if activity.activity_type in MERGE_TYPES:
        raise InvalidInput(
            f"An entry of the type {activity.activity_type} is not restored: merge again instead.",
            path=("activityId",),
        )
    if 0 < version < activity.first_version:
        raise InvalidInput(
            f"Version {version} is not kept any more; the oldest one is {activity.first_version}.",
            path=("toVersion",),
        )
    if content is None:
        raise InvalidInput(
            f"The activity has no version {version}; it is at version {activity.version}.",
            path=("toVersion",),
        )
    if version < (activity.redacted_version or 0):
        raise InvalidInput(
            f"Version {version} was redacted and cannot come back.", path=("toVersion",)
        )
    return content


def _require_version(
    command: UpdateActivity | DeleteActivity | RestoreActivity, activity: Activity
) -> None:
    expected = command.expected_versions
    if expected is not None and activity.version not in expected:
        raise VersionConflict(
            f"The activity is at version {activity.version}, not at the expected one; look at it "
            "before you send your change for this version.",
            path=("expectedVersion",),
            current=activity if activity.deleted_at is None else None,
        )


def _updated_metadata(
    metadata: JSONObject, command: UpdateActivity, limits: InputLimits
) -> JSONObject:
    if isinstance(command.metadata, dict):
        return command.metadata
    if isinstance(command.metadata_patch, dict):
        merged: JSONObject = merge_patch(metadata, command.metadata_patch)
        check_json_object(merged, limits, "metadataPatch")
        return merged
    return metadata


def _require_same_merge(before: Activity, after: Activity) -> None:
    """Raise InvalidInput where a merge entry would name another ticket, or none any more."""
    if before.activity_type not in MERGE_TYPES:
        return
    if merge_target(after.metadata) != (target := merge_target(before.metadata)):
        raise InvalidInput(
            f"The metadata of a {before.activity_type} entry must go on naming {target} as "
            "ticketId.",
            path=("metadata",),
        )
