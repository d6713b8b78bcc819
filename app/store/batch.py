"""The statements of one unit of work: load what its commands name, store what they change.

Their number does not grow with the number of commands.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter
from uuid import UUID

from sqlalchemy import Executable, Table, update
from sqlmodel import Session, select

from app.activity.commands import Command, RestoreActivity, UpdateActivity
from app.activity.state import (
    Activity,
    Change,
    Content,
    Key,
    State,
    Ticket,
    VersionKey,
)
from app.store import rows
from app.store.bulk import Given, insert_rows, update_rows, write_rows
from app.store.parameters import are_among, is_among

_SELECT_TICKETS = (
    select(*rows.TICKET_COLUMNS)
    .where(is_among(rows.TICKET.c.id, "ids"))
    # Locks are taken in the order of the ids, so that two processes cannot wait for each other.
    # They let others refer to the ticket: a merge checks its foreign key on a ticket it locks not.
    .order_by(rows.TICKET.c.id)
    .with_for_update(key_share=True)
)
_SELECT_FREE_TICKETS = (
    select(rows.TICKET.c.id)
    .where(is_among(rows.TICKET.c.id, "ids"))
    .with_for_update(key_share=True, skip_locked=True)
)
_SELECT_TICKET_IDS = select(rows.TICKET.c.id).where(is_among(rows.TICKET.c.id, "ids"))
_SELECT_IDS_IN_USE = select(rows.NODE.c.id).where(is_among(rows.NODE.c.id, "ids"))
_SELECT_ACTIVITIES = select(*rows.ACTIVITY_COLUMNS).where(
    are_among(rows.ACTIVITY.c.ticket_id, rows.ACTIVITY.c.id, "keys")
)
_SELECT_VERSIONS = select(
    rows.CHANGE.c.ticket_id,
    rows.CHANGE.c.activity_id,
    rows.CHANGE.c.version,
    *rows.CONTENT_COLUMNS,
).where(
    are_among(rows.CHANGE.c.ticket_id, rows.CHANGE.c.activity_id, "keys"),
    is_among(rows.CHANGE.c.version, "versions"),
)


def wait_shortly(session: Session) -> None:
    """From now on wait for a lock of PostgreSQL only as long as a usual transaction holds it."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql("SET LOCAL lock_timeout = '200ms'")


def find_held(session: Session, ticket_ids: Collection[UUID]) -> set[UUID]:
    """Return which of these tickets another transaction holds."""
    wait_shortly(session)  # for the table
    parameters = {"ids": list(ticket_ids)}
    free = set(session.exec(_SELECT_FREE_TICKETS, params=parameters))
    return {id_ for id_ in session.exec(_SELECT_TICKET_IDS, params=parameters) if id_ not in free}


def load_state(session: Session, commands: Sequence[Command]) -> State:
    """Read every row the commands name, and lock their tickets until the COMMIT."""
    ticket_ids = set[UUID]().union(*(command.ticket_ids for command in commands))
    new_ids = set[UUID]().union(*(command.new_ids for command in commands))
    found = session.exec(_SELECT_TICKETS, params={"ids": list(ticket_ids)}).all()
    tickets = {row[0]: Ticket(*row) for row in found}
    in_use = _load_ids_in_use(session, new_ids)
    activities = _load_activities(session, in_use, commands)
    if any(activity.ticket_id not in tickets for activity in activities):
        # On PostgreSQL another process may create a ticket between these statements.
        return load_state(session, commands)
    return State(
        tickets=tickets,
        activities={activity.key: activity for activity in activities},
        versions=_load_versions(session, activities, in_use, commands),
        ids_in_use=in_use,
    )


def _load_ids_in_use(session: Session, new_ids: set[UUID]) -> set[UUID]:
    if not new_ids:
        return set()
    return set(session.exec(_SELECT_IDS_IN_USE, params={"ids": list(new_ids)}))


def _load_activities(
    session: Session, in_use: set[UUID], commands: Sequence[Command]
) -> list[Activity]:
    """Return what the commands name. What a creation names is there only if its id is in use."""
    keys = set[Key]().union(
        *(
            command.keys
            for command in commands
            if not command.new_ids or not in_use.isdisjoint(command.new_ids)
        )
    )
    if not keys:
        return []
    found = session.exec(_SELECT_ACTIVITIES, params={"keys": list(keys)}).all()
    return [Activity(*row) for row in found]


def _repeated(activities: Sequence[Activity], commands: Sequence[Command]) -> list[Activity]:
    """Return activities whose version an update with metadata may have made, sent again."""
    updates = [
        command
        for command in commands
        if isinstance(command, UpdateActivity) and command.gives_metadata
    ]
    by_key = {activity.key: activity for activity in activities} if updates else {}
    return [
        activity
        for command in updates
        if (activity := by_key.get(command.key)) and command.may_have_made(activity.version)
    ]


def _load_versions(
    session: Session,
    activities: Sequence[Activity],
    in_use: set[UUID],
    commands: Sequence[Command],
) -> dict[VersionKey, Content]:
    """Return earlier versions: the first one of activities that a command would create again, those
    that one would restore, and those before an update that may be repeated. There are seldom any.
    """
    restorations = [command for command in commands if isinstance(command, RestoreActivity)]
    repeated = _repeated(activities, commands)
    keys = {activity.key for activity in activities if activity.id in in_use}
    keys |= {restoration.key for restoration in restorations}
    keys |= {activity.key for activity in repeated}
    if not keys:
        return {}
    versions = {1} | {restoration.to_version for restoration in restorations}
    versions |= {activity.version - 1 for activity in repeated}
    parameters = {"keys": list(keys), "versions": list(versions)}
    found = session.exec(_SELECT_VERSIONS, params=parameters)
    return {((row[0], row[1]), row[2]): Content(*row[3:]) for row in found}


def store_changes(session: Session, changes: Sequence[Change]) -> None:
    """Write the last state of each ticket and activity, and one history row a change.

    Every creation writes the ids it takes, so that the engine refuses a second one under the same
    id, even within these changes.
    """
    tickets = {change.ticket.id: change.ticket for change in changes}.values()
    activities = {change.activity.key: change.activity for change in changes}.values()
    # In the order of the ids: a creation waits for one of another process under the same id.
    nodes = [(id_, change.ticket.id) for change in changes for id_ in change.new_ids]
    nodes.sort(key=lambda node: node[0].int)
    new = {id_ for id_, _ in nodes}
    new_tickets = sorted((t for t in tickets if t.id in new), key=attrgetter("id"))
    for write, table, parameters in (
        (insert_rows, rows.TICKET, [rows.ticket_row(t) for t in new_tickets]),
        (insert_rows, rows.NODE, [{"id": id_, "ticket_id": of} for id_, of in nodes]),
        (update_rows, rows.TICKET, [rows.ticket_update(t) for t in tickets if t.id not in new]),
        (insert_rows, rows.ACTIVITY, [rows.activity_row(a) for a in activities if a.id in new]),
        (
            update_rows,
            rows.ACTIVITY,
            [rows.activity_update(a) for a in activities if a.id not in new],
        ),
        (insert_rows, rows.CHANGE, [rows.change_row(change) for change in changes]),
    ):
        write(session, table, parameters)
    erased = [rows.erasure(change) for change in changes if change.is_redaction]
    write_rows(session, rows.CHANGE, _erase_versions, erased)


def _erase_versions(change: Table, given: Given) -> Executable:
    return (
        update(change)
        .where(
            change.c.ticket_id == given["key_ticket_id"],
            change.c.activity_id == given["key_activity_id"],
            change.c.version < given["key_version"],
        )
        .values(message=None, metadata={}, reason=None)
    )
