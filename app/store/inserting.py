"""Inserts the lines of an export that are all new, in the quickest way of each engine.

They go to the driver itself: SQLAlchemy takes longer for a row than SQLite does.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only
from sqlmodel import Session

from app.store import rows
from app.store.actors import hold_actors
from app.store.edition import begin_edition, hold_tickets
from app.store.faults import is_about_a_value
from app.store.lines import KINDS, Kind, Values

OWNERS: Final = {"ticket": "id", "entry": "ticket_id"}
"""The kinds whose ids no two objects share, with the member that names the ticket."""

Numbered = tuple[int, Values]
"""A line with its number."""


class NotAllNew(Exception):
    """A row is there already, or what it belongs to is not: lines must be looked at one by one."""


def insert_new(lines: Mapping[str, Sequence[Numbered]], session: Session) -> None:
    """Insert the lines of each kind. Raises NotAllNew, and the transaction is to be rolled back."""
    if "merge" in lines:
        raise NotAllNew
    hold_what_changes(lines, session)
    insert = _insert_on_sqlite if session.get_bind().dialect.name == "sqlite" else _copy
    try:
        for name, kind in KINDS.items():
            if name in lines:
                insert(session, kind, [line for _, line in lines[name]])
        if "entry" in lines:  # a service may have cached that there are none
            begin_edition(session, {UUID(line["ticket_id"]) for _, line in lines["entry"]})
    except DBAPIError as error:
        if is_about_a_value(error):
            raise NotAllNew from None
        raise


def hold_what_changes(lines: Mapping[str, Sequence[Numbered]], session: Session) -> None:
    """Take the locks that the lines need, in the order of every unit of work."""
    if "actor" in lines:
        hold_actors(session)
    changed = [line for name in ("entry", "merge") for _, line in lines.get(name, ())]
    hold_tickets(session, {UUID(line["ticket_id"]) for line in changed})


def _nodes(kind: Kind, given: Sequence[Sequence[Any]]) -> list[tuple[Any, Any]]:
    """Return the rows of the table of ids in use."""
    id_, ticket_id = (kind.columns.index(column) for column in ("id", OWNERS[kind.name]))
    return [(row[id_], row[ticket_id]) for row in given]


def _insert_on_sqlite(session: Session, kind: Kind, lines: Sequence[Values]) -> None:
    connection = session.connection()
    given = list(map(kind.sqlite_row, lines))
    if connection.exec_driver_sql(_sqlite_statement(kind.name), given).rowcount < len(given):
        raise NotAllNew
    if kind.name in OWNERS:
        connection.exec_driver_sql(_SQLITE_NODE, _nodes(kind, given))


@cache
def _sqlite_statement(name: str) -> str:
    kind = KINDS[name]
    columns = ", ".join(kind.columns)
    values = ", ".join("?" * len(kind.columns))
    insert = f"INSERT INTO {kind.table.name} ({columns}) SELECT {values}"
    if name != "change":  # what others belong to is a foreign key
        return insert
    ticket_id, id_ = (kind.columns.index(column) + 1 for column in _ENTRY_OF_CHANGE)
    return (
        f"{insert} WHERE EXISTS (SELECT 1 FROM {rows.ACTIVITY.name} AS entry"  # noqa: S608
        f" WHERE entry.ticket_id = ?{ticket_id} AND entry.id = ?{id_})"
    )


_ENTRY_OF_CHANGE: Final = ("ticket_id", "activity_id")
_SQLITE_NODE: Final = f"INSERT INTO {rows.NODE.name} (id, ticket_id) VALUES (?, ?)"  # noqa: S608


def _copy(session: Session, kind: Kind, lines: Sequence[Values]) -> None:
    """Insert by COPY of PostgreSQL."""
    if kind.name == "change":
        _require_entries(session, lines)
    given = list(map(kind.postgresql_row, lines))
    _copy_rows(session, kind.table.name, kind.columns, given)
    if kind.name in OWNERS:
        _copy_rows(session, rows.NODE.name, ("id", "ticket_id"), _nodes(kind, given))


def _copy_rows(
    session: Session, table: str, columns: Sequence[str], given: Sequence[Sequence[Any]]
) -> None:
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    try:
        await_only(driver.copy_records_to_table(table, columns=columns, records=given))
    except Exception as error:  # as SQLAlchemy does: whether it is repeated is decided by its code
        if is_lost := isinstance(error, OSError) or driver.is_closed():
            connection.invalidate(error)  # so that the pool gives it to nobody
        raise DBAPIError("COPY", None, error, connection_invalidated=is_lost) from error


def _require_entries(session: Session, changes: Sequence[Values]) -> None:
    """Raise NotAllNew unless the entry of each change is there."""
    keys = tuple([change[name] for change in changes] for name in _ENTRY_OF_CHANGE)
    if session.connection().exec_driver_sql(_COUNT_ENTRIES, keys).scalar_one() < len(changes):
        raise NotAllNew


_COUNT_ENTRIES: Final = (
    "SELECT count(*) FROM unnest($1::uuid[], $2::uuid[]) AS given (ticket_id, id)"  # noqa: S608
    f" JOIN {rows.ACTIVITY.name} USING (ticket_id, id)"
)
