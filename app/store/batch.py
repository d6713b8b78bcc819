"""The statements of one unit of work: load what its commands name, store what they change.

A handful of statements whatever the number of commands.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import bindparam, insert, update
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.activity.commands import Command
from app.activity.state import Activity, Change, ChangeType, Original, State, Ticket
from app.store import rows

_SELECT_TICKETS = (
    select(*rows.TICKET_COLUMNS)
    .where(rows.TICKET.c.id.in_(bindparam("ids", expanding=True)))
    # Locks are taken in the order of the ids, so that two processes cannot wait for each other.
    .order_by(rows.TICKET.c.id)
    .with_for_update()
)
_SELECT_ACTIVITIES = select(*rows.ACTIVITY_COLUMNS).where(
    rows.ACTIVITY.c.id.in_(bindparam("ids", expanding=True))
)
_SELECT_ORIGINALS = select(rows.CHANGE.c.activity_id, *rows.ORIGINAL_COLUMNS).where(
    rows.CHANGE.c.ticket_id.in_(bindparam("ticket_ids", expanding=True)),
    rows.CHANGE.c.activity_id.in_(bindparam("activity_ids", expanding=True)),
    rows.CHANGE.c.version == 1,
)
_UPDATE_TICKET = update(rows.TICKET).where(rows.TICKET.c.id == bindparam("key_id"))
_UPDATE_ACTIVITY = update(rows.ACTIVITY).where(
    rows.ACTIVITY.c.ticket_id == bindparam("key_ticket_id"),
    rows.ACTIVITY.c.id == bindparam("key_id"),
)
_INSERT_TICKET, _INSERT_ACTIVITY = insert(rows.TICKET), insert(rows.ACTIVITY)
_INSERT_CHANGE = insert(rows.CHANGE)


async def load_state(session: AsyncSession, commands: Sequence[Command]) -> State:
    """Read every row the commands name, and lock their tickets until the COMMIT."""
    ticket_ids = set[UUID]().union(*(command.ticket_ids for command in commands))
    activity_ids = set[UUID]().union(*(command.activity_ids for command in commands))
    tickets = await session.exec(_SELECT_TICKETS, params={"ids": list(ticket_ids)})
    found = await session.exec(_SELECT_ACTIVITIES, params={"ids": list(activity_ids)})
    activities = [Activity(*row) for row in found]
    return State(
        tickets={row.id: Ticket(*row) for row in tickets},
        activities={activity.id: activity for activity in activities},
        originals=await _load_originals(session, commands, activities),
    )


async def _load_originals(
    session: AsyncSession, commands: Sequence[Command], activities: Sequence[Activity]
) -> dict[UUID, Original]:
    """Read how the activities began that some command would create again: seldom any."""
    created = {command.creates for command in commands}
    retried = [activity for activity in activities if activity.id in created]
    if not retried:
        return {}
    keys = {
        "ticket_ids": [activity.ticket_id for activity in retried],
        "activity_ids": [activity.id for activity in retried],
    }
    return {
        row[0]: Original(*row[1:]) for row in await session.exec(_SELECT_ORIGINALS, params=keys)
    }


async def store_changes(session: AsyncSession, changes: Sequence[Change]) -> None:
    """Write the last state of each ticket and activity, and one history row a change."""
    tickets = {change.ticket.id: change.ticket for change in changes}.values()
    activities = {change.activity.id: change.activity for change in changes}.values()
    new_ids = {change.activity.id for change in changes if change.change_type is ChangeType.ADDED}
    new_ids |= {change.ticket.id for change in changes if change.seq == 1}
    for statement, parameters in (
        (_INSERT_TICKET, [rows.ticket_row(t) for t in tickets if t.id in new_ids]),
        (_UPDATE_TICKET, [rows.ticket_update(t) for t in tickets if t.id not in new_ids]),
        (_INSERT_ACTIVITY, [rows.activity_row(a) for a in activities if a.id in new_ids]),
        (_UPDATE_ACTIVITY, [rows.activity_update(a) for a in activities if a.id not in new_ids]),
        (_INSERT_CHANGE, [rows.change_row(change) for change in changes]),
    ):
        if parameters:
            await session.exec(statement, params=parameters)
