"""Decides what a command changes, or which error it gets.

Pure: it reads nothing but its arguments and mutates nothing. A command that fails does not affect
the other commands of the same unit of work.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import assert_never

from app.activity import policy
from app.activity.commands import (
    PRESENT,
    Command,
    CreateActivity,
    CreateTicket,
    DeleteActivity,
    Past,
    RedactActivity,
    RestoreActivity,
    UpdateActivity,
    check_can_be_private,
)
from app.activity.input_limits import InputLimits, check_json_object
from app.activity.merge_patch import merge_patch
from app.activity.state import (
    ABSENT,
    MERGE_TYPES,
    Activity,
    ActivityType,
    Change,
    ChangeType,
    Content,
    State,
    Ticket,
    merge_target,
)
from app.activity.values import JSONObject, format_datetime, is_same_json
from app.auth import Viewer
from app.errors import IdTaken, InvalidInput, NotFound, VersionConflict


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ticket and the activity after a command. `change` is None where nothing changed."""

    ticket: Ticket
    activity: Activity
    change: Change | None


def decide(
    state: State, command: Command, viewer: Viewer, now: datetime, limits: InputLimits
) -> Outcome:
    """Return the outcome of a command. Raise a UserError if it is forbidden or impossible."""
    now = _not_before_last_change(state.tickets.get(command.ticket_id), now)
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
            return _create_activity(state, command, viewer, now)
        case CreateTicket():
            return _create_ticket(state, command, viewer, now)
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
    updated = replace(
        activity,
        message=activity.message if command.message is ABSENT else command.message,
        metadata=_updated_metadata(activity.metadata, command, limits),
        is_private=activity.is_private
        if command.is_private is ABSENT
        else bool(command.is_private),
    )
    check_can_be_private(activity.activity_type, command.is_private)
    if _holds_same(activity, updated):
        return Outcome(state.tickets[activity.ticket_id], activity, None)
    if may_be_repeated:
        _require_version(command, activity)
    if updated.metadata is not activity.metadata:
        _require_merge_target(state, updated)
    return _changed(state, activity, updated, viewer, now)


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
        return Outcome(state.tickets[found.ticket_id], found, None)
    activity = policy.require_visible(
        viewer, command.ticket_id, command.activity_id, state.activities.get(command.key)
    )
    policy.require_update(viewer, activity)
    _require_version(command, activity)
    return _changed(state, activity, replace(activity, deleted_at=now), viewer, now)


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
        return Outcome(state.tickets[activity.ticket_id], activity, None)
    redacted = replace(
        activity,
        message=None,
        metadata=_without_free_data(activity),
        redacted_version=activity.version + 1,
    )
    return _changed(state, activity, redacted, viewer, now, command.reason)


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
    restored = replace(
        activity,
        message=content.message,
        metadata=content.metadata,
        is_private=content.is_private,
        deleted_at=None,
    )
    if activity.deleted_at is None and _holds_same(activity, restored):
        return Outcome(state.tickets[activity.ticket_id], activity, None)
    return _changed(state, activity, restored, viewer, now)


def _restorable(state: State, activity: Activity, version: int) -> Content:
    """Return what a version held. Raise InvalidInput if it cannot come back."""
    content = state.versions.get((activity.key, version))
    if activity.activity_type in MERGE_TYPES:
        raise InvalidInput(
            f"An entry of the type {activity.activity_type} is not restored: merge again instead.",
            path=("activityId",),
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
            f"The activity is at version {activity.version}, not at the expected one.",
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


def _holds_same(one: Activity | Content, other: Activity | Content) -> bool:
    return (
        one.message == other.message
        and one.is_private == other.is_private
        and is_same_json(one.metadata, other.metadata)
    )


def _changed(
    state: State,
    before: Activity,
    after: Activity,
    viewer: Viewer,
    now: datetime,
    reason: str | None = None,
) -> Outcome:
    after = replace(
        after, version=before.version + 1, updated_at=now, updated_by_id=viewer.actor_id
    )
    change = Change(
        change_type=_change_type(before, after),
        ticket=_ticket_after(state, state.tickets[before.ticket_id], after, now),
        activity=after,
        was_private=None if before.deleted_at else before.is_private,
        reason=reason,
    )
    return _outcome(change)


def _change_type(before: Activity, after: Activity) -> ChangeType:
    if after.deleted_at:
        return ChangeType.REMOVED
    return ChangeType.ADDED if before.deleted_at else ChangeType.UPDATED


def _create_activity(
    state: State, command: CreateActivity, viewer: Viewer, now: datetime
) -> Outcome:
    policy.require_create(viewer, command.activity_type)
    ticket = state.tickets.get(command.ticket_id)
    if ticket is None:
        raise NotFound(f"There is no ticket {command.ticket_id}.", path=("ticketId",))
    created = _new_activity(command, viewer, now)
    if not state.ids_in_use.isdisjoint(command.new_ids):
        return _retried(state, command, created, viewer)
    _require_merge_target(state, created)
    return _added(state, ticket, created, viewer, now)


def _create_ticket(state: State, command: CreateTicket, viewer: Viewer, now: datetime) -> Outcome:
    policy.require_create_ticket(viewer)
    created = _new_activity(command.entry, viewer, now)
    if not state.ids_in_use.isdisjoint(command.new_ids):
        return _retried(state, command.entry, created, viewer)
    ticket = Ticket(
        command.ticket_id,
        created.created_at,
        last_seq=0,
        last_changed_at=now,
        merged_into_id=None,
    )
    return _added(state, ticket, created, viewer, now)


def _new_activity(command: CreateActivity, viewer: Viewer, now: datetime) -> Activity:
    past = command.past
    if past is not PRESENT:
        policy.require_past(viewer, past.first_given)
        _require_order(past, now)
    created_at = past.created_at or now
    actor_id = viewer.actor_id if past.actor_id is ABSENT else past.actor_id
    return Activity(
        ticket_id=command.ticket_id,
        id=command.activity_id,
        activity_type=command.activity_type,
        is_private=command.is_private,
        created_at=created_at,
        actor_id=actor_id,
        message=command.message,
        metadata=command.metadata,
        document_id=command.document_id,
        version=1,
        updated_at=past.updated_at or created_at,
        updated_by_id=actor_id,
    )


def _require_order(past: Past, now: datetime) -> None:
    """Raise InvalidInput unless an entry was created, then updated, then imported."""
    created_at = past.created_at or now
    updated_at = past.updated_at or created_at
    for name, time in (("createdAt", created_at), ("updatedAt", updated_at)):
        if time > now:
            raise InvalidInput(
                f"{name} is {format_datetime(time)}, which is in the future: "
                f"it is {format_datetime(now)}.",
                path=(name,),
            )
    if updated_at < created_at:
        raise InvalidInput(
            f"updatedAt is {format_datetime(updated_at)}, which is before createdAt, "
            f"{format_datetime(created_at)}.",
            path=("updatedAt",),
        )


def _retried(state: State, command: CreateActivity, created: Activity, viewer: Viewer) -> Outcome:
    """Return the outcome of a creation under an id in use. Raise IdTaken unless it is a retry.

    An importer may have made an entry that the viewer does not see by now.
    """
    existing = state.activities.get(created.key)
    original = state.versions.get((created.key, 1))
    if (
        existing
        and original
        and policy.can_see(viewer, existing)
        and command.past.created_at in (None, existing.created_at)
        and _is_same_creation(existing, original, created)
    ):
        return Outcome(state.tickets[existing.ticket_id], existing, None)
    raise IdTaken("The id is in use with other content.", path=("id",))


def _is_same_creation(existing: Activity, original: Content, created: Activity) -> bool:
    """Return whether a creation is a retry. What a redacted entry held is not known any more."""
    return (
        existing.redacted_version is None
        and _fixed_part(existing) == _fixed_part(created)
        and _holds_same(original, created)
    )


def _fixed_part(activity: Activity) -> tuple[object, ...]:
    """Return the fields that no update changes."""
    return activity.ticket_id, activity.activity_type, activity.actor_id, activity.document_id


def _require_merge_target(state: State, activity: Activity) -> None:
    if activity.activity_type is not ActivityType.MERGED_INTO:
        return
    target = merge_target(activity.metadata)
    if target is None or target not in state.tickets or target == activity.ticket_id:
        raise InvalidInput(
            "The metadata of a merged_into entry must name another ticket as ticketId.",
            path=("metadata",),
        )


def _added(
    state: State, ticket: Ticket, activity: Activity, viewer: Viewer, now: datetime
) -> Outcome:
    is_own = activity.actor_id == viewer.actor_id
    change = Change(
        ChangeType.ADDED,
        _ticket_after(state, ticket, activity, now),
        activity,
        was_private=None,
        recorded_at=None if activity.updated_at == now else now,
        recorded_by_id=None if is_own else viewer.actor_id,
    )
    return _outcome(change)


def _ticket_after(state: State, ticket: Ticket, activity: Activity, now: datetime) -> Ticket:
    """Return the ticket after a change; `activity` is the entry after it."""
    seq = ticket.last_seq + 1
    ticket = replace(ticket, last_seq=seq, last_changed_at=now)
    if activity.activity_type is not ActivityType.MERGED_INTO:
        return ticket
    standing = state.merges_after(activity, seq).values()
    newest = max(standing, key=attrgetter("seq"), default=None)
    return replace(ticket, merged_into_id=newest.target_id if newest else None)


def _outcome(change: Change) -> Outcome:
    return Outcome(change.ticket, change.activity, change)
