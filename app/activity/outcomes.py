"""What a command leads to: the changes, and the ticket and the activity after them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.activity.commands import CreateActivity, DeleteActivity, RestoreActivity, UpdateActivity
from app.activity.state import (
    Activity,
    ActivityType,
    Change,
    ChangeType,
    Content,
    State,
    Ticket,
    merge_target,
)
from app.activity.values import is_same_json
from app.auth import Viewer
from app.errors import TicketMerged


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ticket and the activity after a command. `changes` are none where nothing changed."""

    ticket: Ticket
    activity: Activity
    changes: tuple[Change, ...] = ()


def changed(
    state: State,
    before: Activity,
    after: Activity,
    by: UUID | None,
    now: datetime,
    reason: str | None = None,
) -> Outcome:
    after = after._replace(version=before.version + 1, updated_at=now, updated_by_id=by)
    change = Change(
        change_type=_change_type(before, after),
        ticket=_ticket_after(_unmerged(state.tickets[before.ticket_id], before, after), now),
        activity=after,
        before=None if before.deleted_at else before,
        reason=reason,
    )
    return Outcome(change.ticket, after, (change,))


def _change_type(before: Activity, after: Activity) -> ChangeType:
    if after.deleted_at:
        return ChangeType.REMOVED
    return ChangeType.ADDED if before.deleted_at else ChangeType.UPDATED


def _unmerged(ticket: Ticket, before: Activity, after: Activity) -> Ticket:
    """Return the ticket without its merge if the entry that states it is deleted."""
    is_undone = (
        before.activity_type is ActivityType.MERGED_INTO
        and before.deleted_at is None
        and after.deleted_at is not None
        and merge_target(before.metadata) == ticket.merged_into_id
    )
    return ticket._replace(merged_into_id=None) if is_undone else ticket


def added(ticket: Ticket, activity: Activity, viewer: Viewer, now: datetime) -> Outcome:
    is_own = activity.actor_id == viewer.actor_id
    change = Change(
        ChangeType.ADDED,
        _ticket_after(ticket, now),
        activity,
        before=None,
        recorded_at=None if activity.updated_at == now else now,
        recorded_by_id=None if is_own else viewer.actor_id,
    )
    return Outcome(change.ticket, activity, (change,))


def _ticket_after(ticket: Ticket, now: datetime) -> Ticket:
    return ticket._replace(last_seq=ticket.last_seq + 1, last_changed_at=now)


def holds_same(one: Activity | Content, other: Activity | Content) -> bool:
    return (
        one.message == other.message
        and one.is_private == other.is_private
        and is_same_json(one.metadata, other.metadata)
    )


def require_not_merged(
    state: State, command: CreateActivity | UpdateActivity | DeleteActivity | RestoreActivity
) -> None:
    """Raise TicketMerged for a write to a ticket that was merged, unless the command allows it."""
    target_id = state.tickets[command.ticket_id].merged_into_id
    if target_id and not command.allows_merged:
        raise TicketMerged(
            f"The ticket was merged into {target_id}: write there, or set allowMerged.",
            path=("ticketId",),
        )
