"""The statements of one unit of work: load what its commands name, store what they change.

Their number does not grow with the number of commands.
"""

from collections.abc import Sequence
from operator import attrgetter
from uuid import UUID

from sqlalchemy import bindparam, literal_column, update
from sqlmodel import Session, select

from app.activity.commands import Command, CreateActivity, RestoreActivity, UpdateActivity
from app.activity.state import (
    Activity,
    ActivityType,
    Change,
    Content,
    Key,
    Merge,
    State,
    Ticket,
    VersionKey,
    merge_target,
)
from app.store import rows
from app.store.bulk import insert_rows, update_rows
from app.store.parameters import are_among, is_among

_SELECT_TICKETS = (
    select(*rows.TICKET_COLUMNS)
    .where(is_among(rows.TICKET.c.id, "ids"))
    # Locks are taken in the order of the ids, so that two processes cannot wait for each other.
    # They let others refer to the ticket: a merge checks its foreign key on a ticket it locks not.
    .order_by(rows.TICKET.c.id)
    .with_for_update(key_share=True)
)
# Without a lock: it is only asked whether they exist, and tickets are never deleted.
_SELECT_TARGETS = select(*rows.TICKET_COLUMNS).where(is_among(rows.TICKET.c.id, "ids"))
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
# All columns of this alias are in the index `ix_ticket_activity_merge`. With any other column,
# SQLite's planner prefers the primary key and reads the whole timeline.
_MERGE = rows.ACTIVITY.alias("merge")
_SELECT_MERGES = (
    select(
        _MERGE.c.ticket_id,
        _MERGE.c.id,
        rows.CHANGE.c.seq,
        rows.ACTIVITY.c.metadata["ticketId"].as_string(),
    )
    .join_from(
        _MERGE,
        rows.ACTIVITY,
        (rows.ACTIVITY.c.ticket_id == _MERGE.c.ticket_id) & (rows.ACTIVITY.c.id == _MERGE.c.id),
    )
    .join(
        rows.CHANGE,
        (rows.CHANGE.c.ticket_id == _MERGE.c.ticket_id)
        & (rows.CHANGE.c.activity_id == _MERGE.c.id),
    )
    .where(
        is_among(_MERGE.c.ticket_id, "ids"),
        # A literal, as in the condition of the partial index: with a parameter it is not used.
        _MERGE.c.activity_type == literal_column("'merged_into'"),
        _MERGE.c.deleted_at.is_(None),
        # Earlier releases let such entries be private.
        _MERGE.c.is_private.is_(False),
        rows.CHANGE.c.version == 1,
    )
)
_ERASE_VERSIONS = (
    update(rows.CHANGE)
    .where(
        rows.CHANGE.c.ticket_id == bindparam("key_ticket_id"),
        rows.CHANGE.c.activity_id == bindparam("key_activity_id"),
        rows.CHANGE.c.version < bindparam("key_version"),
    )
    .values(message=None, metadata={}, reason=None)
)


def load_state(session: Session, commands: Sequence[Command]) -> State:
    """Read every row the commands name, and lock their tickets until the COMMIT."""
    ticket_ids = set[UUID]().union(*(command.ticket_ids for command in commands))
    keys = set[Key]().union(*(command.keys for command in commands))
    new_ids = set[UUID]().union(*(command.new_ids for command in commands))
    tickets = session.exec(_SELECT_TICKETS, params={"ids": list(ticket_ids)})
    found = session.exec(_SELECT_ACTIVITIES, params={"keys": list(keys)})
    activities = [Activity(*row) for row in found]
    in_use = _load_ids_in_use(session, new_ids)
    state = State(
        tickets={row.id: Ticket(*row) for row in tickets},
        activities={activity.key: activity for activity in activities},
        versions=_load_versions(session, activities, in_use, commands),
        ids_in_use=in_use,
        merges={},
    )
    if merged_ids := _merged_ids(commands, activities):
        _load_merges(session, state, merged_ids, commands)
    return state


def _merged_ids(commands: Sequence[Command], activities: Sequence[Activity]) -> set[UUID]:
    """Return the tickets whose merges a command may change. There are seldom any."""
    merged_into = ActivityType.MERGED_INTO
    return {a.ticket_id for a in activities if a.activity_type is merged_into} | {
        command.ticket_id
        for command in commands
        if isinstance(command, CreateActivity) and command.activity_type is merged_into
    }


def _load_merges(
    session: Session, state: State, ticket_ids: set[UUID], commands: Sequence[Command]
) -> None:
    """Add the current merges of these tickets, and all tickets that these may be merged into."""
    found = [
        (ticket_id, id_, Merge(seq, target_id))
        for ticket_id, id_, seq, target in session.exec(
            _SELECT_MERGES, params={"ids": list(ticket_ids)}
        )
        if (target_id := merge_target({"ticketId": target}))
    ]
    target_ids = {merge.target_id for _, _, merge in found}
    target_ids |= {
        command.merge_target
        for command in commands
        if isinstance(command, UpdateActivity) and command.merge_target
    }
    missing = list(target_ids - state.tickets.keys())
    tickets = session.exec(_SELECT_TARGETS, params={"ids": missing})
    state.tickets.update({row.id: Ticket(*row) for row in tickets})
    for ticket_id, id_, merge in found:
        if merge.target_id in state.tickets:
            state.merges.setdefault(ticket_id, {})[id_] = merge


def _load_ids_in_use(session: Session, new_ids: set[UUID]) -> set[UUID]:
    if not new_ids:
        return set()
    return set(session.exec(_SELECT_IDS_IN_USE, params={"ids": list(new_ids)}))


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
    nodes = sorted((id_, change.ticket.id) for change in changes for id_ in change.new_ids)
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
    if erased := [rows.erasure(change) for change in changes if change.is_redaction]:
        session.exec(_ERASE_VERSIONS, params=erased)
