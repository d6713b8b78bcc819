"""Reads, always many keys at a time, on connections that cannot write."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import bindparam
from sqlmodel import select

from app.activity.state import Activity, Ticket
from app.store import rows
from app.store.database import Database

_TICKETS = select(*rows.TICKET_COLUMNS).where(
    rows.TICKET.c.id.in_(bindparam("ids", expanding=True))
)
_ACTIVITIES = (
    select(*rows.ACTIVITY_COLUMNS)
    .join_from(
        rows.NODE,
        rows.ACTIVITY,
        (rows.ACTIVITY.c.ticket_id == rows.NODE.c.ticket_id)
        & (rows.ACTIVITY.c.id == rows.NODE.c.id),
    )
    .where(rows.NODE.c.id.in_(bindparam("ids", expanding=True)))
)


async def load_tickets(database: Database, ids: Sequence[UUID]) -> list[Ticket | None]:
    """Return the tickets in the order of the ids, None for one that does not exist."""
    async with database.snapshot() as session:
        tickets = {
            row[0]: Ticket(*row) for row in await session.exec(_TICKETS, params={"ids": ids})
        }
    return [tickets.get(id_) for id_ in ids]


async def load_activities(database: Database, ids: Sequence[UUID]) -> list[Activity | None]:
    """Return the activities in the order of the ids, None for one that does not exist.

    Whether the viewer may see them is for the caller to ask.
    """
    async with database.snapshot() as session:
        found = [Activity(*row) for row in await session.exec(_ACTIVITIES, params={"ids": ids})]
    activities = {activity.id: activity for activity in found}
    return [activities.get(id_) for id_ in ids]


async def has_tickets(database: Database) -> bool:
    async with database.snapshot() as session:
        return (await session.exec(select(rows.TICKET.c.id).limit(1))).first() is not None
