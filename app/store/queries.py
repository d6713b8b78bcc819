"""The statements that read tickets and entries by their ids."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Column, bindparam
from sqlmodel import Session, select

from app.activity.state import Activity, Ticket, TicketState
from app.store import rows
from app.store.parameters import is_among

_TICKETS = select(*rows.TICKET_COLUMNS).where(is_among(rows.TICKET.c.id, "ids"))
_ACTIVITIES = (
    select(*rows.ACTIVITY_COLUMNS)
    .join_from(
        rows.NODE,
        rows.ACTIVITY,
        (rows.ACTIVITY.c.ticket_id == rows.NODE.c.ticket_id)
        & (rows.ACTIVITY.c.id == rows.NODE.c.id),
    )
    .where(is_among(rows.NODE.c.id, "ids"))
)


_STATE_COLUMNS: tuple[Column[Any], ...] = (
    rows.TICKET.c.id,
    rows.TICKET.c.last_seq,
    rows.TICKET.c.edition,
    rows.TICKET.c.forgotten_seq,
    rows.TICKET.c.forgotten_public_seq,
)
_STATES = select(*_STATE_COLUMNS).where(is_among(rows.TICKET.c.id, "ids"))


def _merged() -> Any:
    """Return the statement that follows merges. UNION ends it where there is a circle."""
    into = rows.TICKET.c.merged_into_id
    columns = _STATE_COLUMNS
    first = select(*columns).where(into == bindparam("ticket_id")).cte("merged", recursive=True)
    merged = first.union(select(*columns).join(first, into == first.c.id))
    return (
        select(*merged.c)
        .where(merged.c.id != bindparam("ticket_id"))
        .order_by(merged.c.id)
        .limit(bindparam("size"))
    )


_MERGED = _merged()


def load_tickets(session: Session, ids: Sequence[UUID]) -> dict[UUID, Ticket]:
    """Return the tickets that exist."""
    return {row[0]: Ticket(*row) for row in session.exec(_TICKETS, params={"ids": ids}).all()}


def load_activities(session: Session, ids: Sequence[UUID]) -> dict[UUID, Activity]:
    """Return the entries that exist. The caller checks whether the viewer may see them."""
    found = session.exec(_ACTIVITIES, params={"ids": ids}).all()
    return {activity.id: activity for activity in [Activity(*row) for row in found]}


def load_states(session: Session, ids: Sequence[UUID]) -> dict[UUID, TicketState]:
    """Return the state of each ticket that exists."""
    return {row[0]: TicketState(*row) for row in session.exec(_STATES, params={"ids": ids})}


def load_merged(session: Session, ticket_id: UUID, *, size: int) -> list[TicketState]:
    """Return the tickets merged into one, also by way of others.

    There are at most `size`, in the order of their ids.
    """
    found = session.exec(_MERGED, params={"ticket_id": ticket_id, "size": size})
    return [TicketState(*row) for row in found]


def has_tickets(session: Session) -> bool:
    return session.exec(select(rows.TICKET.c.id).limit(1)).first() is not None
