"""Decides what creates entries: of a ticket, on a ticket, and of a merge on both tickets."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from app.activity import policy
from app.activity.commands import PRESENT, CreateActivity, CreateTicket, MergeTickets, Past
from app.activity.outcomes import Outcome, added, holds_same, require_not_merged
from app.activity.state import ABSENT, Activity, ActivityType, Content, State, Ticket
from app.activity.values import format_datetime
from app.auth import Viewer
from app.errors import IdTaken, InvalidInput, NotFound, TicketMerged


def create_activity(
    state: State, command: CreateActivity, viewer: Viewer, now: datetime
) -> Outcome:
    policy.require_create(viewer, command.activity_type)
    ticket = state.tickets.get(command.ticket_id)
    if ticket is None:
        raise NotFound(f"There is no ticket {command.ticket_id}.", path=("ticketId",))
    created = _new_activity(command, viewer, now)
    if not state.ids_in_use.isdisjoint(command.new_ids):
        return _retried(state, command, created, viewer)
    require_not_merged(state, command)
    return added(ticket, created, viewer, now)


def create_ticket(state: State, command: CreateTicket, viewer: Viewer, now: datetime) -> Outcome:
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
    return added(ticket, created, viewer, now)


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
        return Outcome(state.tickets[existing.ticket_id], existing)
    raise IdTaken("The id is in use with other content.", path=("id",))


def _is_same_creation(existing: Activity, original: Content, created: Activity) -> bool:
    """Return whether a creation is a retry. What a redacted entry held is not known any more."""
    return (
        existing.redacted_version is None
        and _fixed_part(existing) == _fixed_part(created)
        and holds_same(original, created)
    )


def _fixed_part(activity: Activity) -> tuple[object, ...]:
    """Return the fields that no update changes."""
    return activity.ticket_id, activity.activity_type, activity.actor_id, activity.document_id


def merge_tickets(state: State, command: MergeTickets, viewer: Viewer, now: datetime) -> Outcome:
    """Return the outcome with the entry on the source; its second change is that of the target.

    Neither ticket may be merged already, and both are locked. So no circle can come about.
    """
    policy.require_merge(viewer)
    source = _mergeable(state, command.source_id, "sourceId")
    target = _mergeable(state, command.target_id, "targetId")
    if not state.ids_in_use.isdisjoint(command.new_ids):
        raise IdTaken("The id is in use with other content.", path=("id",))
    source = source._replace(merged_into_id=target.id)
    into = _merge_entry(source, command.merged_into_id, ActivityType.MERGED_INTO, target)
    of = _merge_entry(target, command.merged_from_id, ActivityType.MERGED_FROM, source)
    first, second = (
        added(ticket, _new_activity(replace(entry, past=command.past), viewer, now), viewer, now)
        for ticket, entry in ((source, into), (target, of))
    )
    return replace(first, changes=first.changes + second.changes)


def _mergeable(state: State, ticket_id: UUID, name: str) -> Ticket:
    ticket = state.tickets.get(ticket_id)
    if ticket is None:
        raise NotFound(f"There is no ticket {ticket_id}.", path=(name,))
    if ticket.merged_into_id:
        raise TicketMerged(
            f"The ticket {ticket_id} was merged into {ticket.merged_into_id} already.", path=(name,)
        )
    return ticket


def _merge_entry(
    ticket: Ticket, id_: UUID, activity_type: ActivityType, other: Ticket
) -> CreateActivity:
    return CreateActivity(
        ticket_id=ticket.id,
        activity_id=id_,
        activity_type=activity_type,
        message=None,
        metadata={"ticketId": str(other.id)},
        is_private=False,
        document_id=None,
    )
