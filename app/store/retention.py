"""The statements that remove what is too old: each function is a unit of work that can be repeated.

A version is as old as its `changed_at`. Versions that are too old are removed, and the entry with
them if its newest one is among them. Tickets stay, and so does the use of the ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Executable, Table, bindparam, case, delete, or_, select, tuple_, update
from sqlmodel import Session

from app.activity.state import Key
from app.store import rows
from app.store.bulk import Given, write_rows
from app.store.edition import hold_tickets
from app.store.parameters import are_among

ROWS_AT_A_TIME: Final = 1000

Place = tuple[UUID, int]
"""The key of a row of the history: its ticket, and its `seq` there."""

_TICKET = rows.TICKET.c
_ACTIVITY = rows.ACTIVITY.c
_CHANGE = rows.CHANGE.c
_CURSOR_KEY = rows.CURSOR_KEY.c

_PLACE = tuple_(_CHANGE.ticket_id, _CHANGE.seq)
_ROWS = (
    select(
        _CHANGE.ticket_id,
        _CHANGE.seq,
        _CHANGE.activity_id,
        _CHANGE.version,
        (_CHANGE.changed_at < bindparam("before", type_=_CHANGE.changed_at.type)).label("is_old"),
        (_CHANGE.version == _ACTIVITY.version).label("is_newest"),
        or_(_CHANGE.is_private.is_(False), _CHANGE.was_private.is_(False)).label("is_public"),
    )
    .join_from(
        rows.CHANGE,
        rows.ACTIVITY,
        (_ACTIVITY.ticket_id == _CHANGE.ticket_id) & (_ACTIVITY.id == _CHANGE.activity_id),
    )
    .order_by(_CHANGE.ticket_id, _CHANGE.seq)
    .limit(ROWS_AT_A_TIME)
)
_NEWEST = select(_ACTIVITY.ticket_id, _ACTIVITY.id, _ACTIVITY.version).where(
    are_among(_ACTIVITY.ticket_id, _ACTIVITY.id, "keys")
)
_DELETE_ENTRIES = delete(rows.ACTIVITY).where(are_among(_ACTIVITY.ticket_id, _ACTIVITY.id, "keys"))
_EXPIRE = (
    update(rows.CURSOR_KEY)
    .where(or_(_CURSOR_KEY.valid_since.is_(None), _CURSOR_KEY.valid_since < bindparam("before")))
    .values(valid_since=bindparam("before"))
)


@dataclass(frozen=True, slots=True)
class Old:
    """What is too old among the next rows of the history; `end` is the last of them, None if none.

    `versions` is the newest version of each entry that is too old, `seqs` the newest change of each
    ticket, `public_seqs` the newest whose entry was public before or after it. `entries` and
    `changes` count what is to be removed, `tickets` those that were read.
    """

    end: Place | None
    versions: Mapping[Key, int]
    seqs: Mapping[UUID, int]
    public_seqs: Mapping[UUID, int]
    entries: int
    changes: int
    tickets: int


def find_old(session: Session, before: datetime, after: Place | None) -> Old:
    """Read the next rows of the history, in the order of their keys."""
    statement = _ROWS if after is None else _ROWS.where(after < _PLACE)
    found = session.connection().execute(statement, {"before": before}).all()
    old = [row for row in found if row.is_old]
    tickets = {row.ticket_id for row in found} - ({after[0]} if after else set())
    return Old(
        end=(found[-1].ticket_id, found[-1].seq) if found else None,
        # The rows of an entry are in the order of its versions.
        versions={(row.ticket_id, row.activity_id): row.version for row in old},
        seqs={row.ticket_id: row.seq for row in old},
        public_seqs={row.ticket_id: row.seq for row in old if row.is_public},
        entries=sum(row.is_newest for row in old),
        changes=len(old),
        tickets=len(tickets),
    )


def remove_old(session: Session, old: Old) -> None:
    """Remove what was found to be too old, but for entries that have changed since."""
    connection = session.connection()
    hold_tickets(session, old.seqs)
    keys = list(old.versions)
    newest = {(row[0], row[1]): row[2] for row in connection.execute(_NEWEST, {"keys": keys})}
    gone = [key for key, version in newest.items() if old.versions[key] == version]
    kept = [
        {"key_ticket_id": key[0], "key_id": key[1], "first_version": old.versions[key] + 1}
        for key, version in newest.items()
        if old.versions[key] < version
    ]
    versions = [
        {"key_ticket_id": key[0], "key_activity_id": key[1], "key_version": version}
        for key, version in old.versions.items()
    ]
    forgotten = [
        {
            "key_id": id_,
            "forgotten_seq": seq,
            "forgotten_public_seq": old.public_seqs.get(id_, 0),
        }
        for id_, seq in sorted(old.seqs.items())
    ]
    write_rows(session, rows.CHANGE, _delete_versions, versions)
    write_rows(session, rows.ACTIVITY, _keep_from, kept)
    if gone:
        connection.execute(_DELETE_ENTRIES, {"keys": gone})
    write_rows(session, rows.TICKET, _forget, forgotten)


def _delete_versions(change: Table, given: Given) -> Executable:
    return delete(change).where(
        change.c.ticket_id == given["key_ticket_id"],
        change.c.activity_id == given["key_activity_id"],
        change.c.version <= given["key_version"],
    )


def _keep_from(activity: Table, given: Given) -> Executable:
    first = given["first_version"]
    is_key = (activity.c.ticket_id == given["key_ticket_id"]) & (activity.c.id == given["key_id"])
    return (
        update(activity).where(is_key, activity.c.first_version < first).values(first_version=first)
    )


def _forget(ticket: Table, given: Given) -> Executable:
    names = ("forgotten_seq", "forgotten_public_seq")
    largest = {
        name: case((ticket.c[name] < given[name], given[name]), else_=ticket.c[name])
        for name in names
    }
    is_ticket = ticket.c.id == given["key_id"]
    return update(ticket).where(is_ticket).values(edition=ticket.c.edition + 1, **largest)


def expire_cursors(session: Session, before: datetime) -> None:
    """Let feed cursors of positions before a time expire, before anything after them is removed."""
    session.connection().execute(_EXPIRE, {"before": before})
