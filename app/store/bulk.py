"""Writes many rows by one statement, in the way that is quickest on each engine.

SQLite runs a statement once for each row. PostgreSQL runs it once, on arrays that it unfolds into
rows: a message to it costs more than a row.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Dialect,
    Executable,
    Table,
    bindparam,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlmodel import Session

_KEY: Final = "key_"
"""Members of a row that begin so find the row to write: `key_id` is the column `id`."""

Given = Mapping[str, ColumnElement[Any]]
"""The members of a row, as a statement names them."""

Write = Callable[[Table, Given], Any]
"""Makes an UPDATE or DELETE of a table from the members of a row."""

Conflict = Callable[[Any], Any]
"""Adds to an INSERT of either engine what happens to a row that is there already."""

_Values = Sequence[tuple[str, Callable[[Any], Any] | None]]
"""Which member of a row each parameter is, and what turns it into a value for the driver."""


def insert_rows(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    conflict: Conflict | None = None,
) -> None:
    """Insert rows, which all have the same members, in their order."""
    if not rows:
        return
    names = tuple(rows[0])
    if _has_arrays(session):
        _execute(session, _insert_from_arrays(table, names, conflict), rows)
    else:
        dialect = session.connection().dialect
        _execute_each(session, *_insert_each(table, names, conflict, dialect), rows)


def leave(statement: Any) -> Any:
    """Leave a row that is there already as it is."""
    return statement.on_conflict_do_nothing()


def update_rows(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set the columns of each row that its members `key_…` find to the other members."""
    write_rows(session, table, _set, rows)


def write_rows(
    session: Session, table: Table, write: Write, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Carry out a statement for each row. Rows have the same members, named as in `update_rows`."""
    if not rows:
        return
    names = tuple(rows[0])
    if _has_arrays(session):
        _execute(session, _write_from_arrays(table, names, write), rows)
    else:
        dialect = session.connection().dialect
        _execute_each(session, *_write_each(table, names, write, dialect), rows)


def _set(table: Table, given: Given) -> Executable:
    keys = [name for name in given if name.startswith(_KEY)]
    return (
        update(table)
        .where(*(_column(table, key) == given[key] for key in keys))
        .values({name: given[name] for name in given if name not in keys})
    )


def _column(table: Table, name: str) -> Column[Any]:
    return table.c[name.removeprefix(_KEY)]


def _has_arrays(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


# Once for all rows


def _execute(session: Session, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    session.exec(statement, params={name: [row[name] for row in rows] for name in rows[0]})


@cache
def _insert_from_arrays(table: Table, names: Sequence[str], conflict: Conflict | None) -> Any:
    statement = postgresql.insert(table).from_select(names, select(*_unfolded(table, names).c))
    return conflict(statement) if conflict else statement


@cache
def _write_from_arrays(table: Table, names: Sequence[str], write: Write) -> Any:
    return write(table, dict(_unfolded(table, names).c.items()))


def _unfolded(table: Table, names: Sequence[str]) -> TableValuedAlias:
    """Return rows whose members are parameters: an array for each, under its name."""
    arrays = [
        bindparam(name, type_=ARRAY(_column(table, name).type, dimensions=1)) for name in names
    ]
    return func.unnest(*arrays).table_valued(*names, name="given").render_derived()


# Once for each row


def _execute_each(
    session: Session, statement: str, values: _Values, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Run a statement of the driver for each row. SQLAlchemy does the same, in twice the time."""
    parameters = [
        tuple([row[name] if convert is None else convert(row[name]) for name, convert in values])
        for row in rows
    ]
    session.connection().exec_driver_sql(statement, parameters)


@cache
def _insert_each(
    table: Table, names: Sequence[str], conflict: Conflict | None, dialect: Dialect
) -> tuple[str, _Values]:
    statement = sqlite.insert(table)
    if conflict:
        statement = conflict(statement)
    return _compiled(statement.compile(dialect=dialect, column_keys=list(names)), names)


@cache
def _write_each(
    table: Table, names: Sequence[str], write: Write, dialect: Dialect
) -> tuple[str, _Values]:
    given = {name: bindparam(name, type_=_column(table, name).type) for name in names}
    return _compiled(write(table, given).compile(dialect=dialect), names)


def _compiled(compiled: SQLCompiler, names: Sequence[str]) -> tuple[str, _Values]:
    """Return the statement for the driver, and its parameters in their order."""
    values: list[tuple[str, Callable[[Any], Any] | None]] = []
    for name in compiled.positiontup or ():
        type_ = compiled.binds[name].type.dialect_impl(compiled.dialect)
        convert = type_.bind_processor(compiled.dialect)
        if name not in names:  # a constant of the statement
            constant = compiled.params[name]
            values.append((names[0], _always(convert(constant) if convert else constant)))
        else:
            values.append((name, convert))
    return str(compiled), values


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value
