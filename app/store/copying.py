"""Copies every table of one database into another one, on any engine, a page at a time.

What has been copied is noted in the target, in the transaction of each page. So a copy that was
cut off goes on where it was. Nobody may write to the source meanwhile.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import JSON, Column, MetaData, Row, String, Table, delete, func, select, tuple_
from sqlalchemy.schema import CreateTable, DropTable
from sqlmodel import Session, SQLModel

from app.json_text import dump_json
from app.store import rows
from app.store.bulk import insert_rows, update_rows
from app.store.engine import Connection, Database
from app.store.errors import DatabaseUnusable
from app.store.migrate import COPY_PROGRESS

PAGE_ROWS: Final = 250

Told = Callable[[str, int, int], None]
"""Told of a step, how much of it is done, and how much there is."""

_PROGRESS: Final = Table(
    COPY_PROGRESS,
    MetaData(),
    Column("table_name", String, primary_key=True),
    Column("last_key", JSON, nullable=False),
)

_SOURCE: Final = "the source"
"""Where `_PROGRESS` has the identity of the source, beside the tables and their last keys."""

_FILLED_BY_MIGRATIONS: Final = (rows.CURSOR_KEY,)


@dataclass(frozen=True, slots=True)
class _Sum:
    """How many rows a table has, and a checksum that does not depend on their order."""

    count: int = 0
    checksum: int = 0

    def add(self, row: Sequence[Any]) -> "_Sum":
        digest = hashlib.sha256(dump_json([_plain(value) for value in row]).encode()).digest()
        return _Sum(self.count + 1, (self.checksum + int.from_bytes(digest)) % 2**256)


async def copy_database(source: Database, target: Database, tell: Told) -> int:
    """Copy all rows and return their number. Both databases have the tables of this release.

    Raises DatabaseUnusable where the target is neither empty nor an unfinished copy, and where it
    holds other rows at the end than the source does.
    """
    async with source.hold_writes():
        reading = await source.connect_for_reads(is_long=True)
        try:
            await target.write(partial(_begin, source=await reading.run(_identity)))
            for table in _tables():
                await _copy_table(reading, target, table, tell)
            for table in _tables():
                await _link_rows(reading, target, table)
            total = await _verify(reading, target, tell)
        finally:
            await reading.close()
    await target.write(lambda session: session.connection().execute(DropTable(_PROGRESS)).close())
    return total


def _tables() -> list[Table]:
    """Return the tables, each after those that it refers to."""
    return SQLModel.metadata.sorted_tables


def _identity(session: Session) -> str:
    """Return what tells a database from others: a hash of the key that its first migration made."""
    key: bytes = session.connection().execute(select(rows.CURSOR_KEY.c.key)).scalar_one()
    return hashlib.sha256(key).hexdigest()


def _begin(session: Session, source: str) -> None:
    """Mark an empty target as an unfinished copy. Raises DatabaseUnusable for any other."""
    connection = session.connection()
    if connection.dialect.has_table(connection, COPY_PROGRESS):
        if _noted(session, _SOURCE) not in ([source], None):  # none by release 0.1.0
            raise DatabaseUnusable(
                "The target is an unfinished copy of another database. Name a new database."
            )
        return
    for table in _tables():
        if table not in _FILLED_BY_MIGRATIONS and count_rows(session, table):
            raise DatabaseUnusable(
                f"The target is not empty: it has rows in {table.name}. Name a new database."
            )
    for table in _FILLED_BY_MIGRATIONS:
        connection.execute(delete(table))
    connection.execute(CreateTable(_PROGRESS))
    connection.execute(_PROGRESS.insert().values(table_name=_SOURCE, last_key=[source]))


async def _copy_table(reading: Connection, target: Database, table: Table, tell: Told) -> None:
    total = await reading.run(lambda session: count_rows(session, table))
    last_key = await target.read(lambda session: _last_key(session, table))
    done = await target.read(lambda session: count_rows(session, table)) if last_key else 0
    tell(table.name, done, total)
    async for page in pages(reading, table, last_key):
        await target.write(partial(_store, table, page))
        done += len(page)
        tell(table.name, done, total)


async def pages(
    reading: Connection, table: Table, last_key: Sequence[Any] | None = None
) -> AsyncIterator[Sequence[Row[Any]]]:
    """Yield all rows after a key, in the order of their keys."""
    while page := await reading.run(partial(_load_page, table, last_key)):
        yield page
        last_key = _key(table, page[-1])


def _load_page(
    table: Table, last_key: Sequence[Any] | None, session: Session
) -> Sequence[Row[Any]]:
    key = table.primary_key.columns
    page = select(table).order_by(*key).limit(PAGE_ROWS)
    if last_key is not None:
        page = page.where(tuple_(*key) > tuple_(*last_key, types=[column.type for column in key]))
    return session.connection().execute(page).all()


def _store(table: Table, page: Sequence[Row[Any]], session: Session) -> None:
    """Insert a page and note its end. References within the table come later: see `_link_rows`."""
    unlinked = dict.fromkeys(_references_to_itself(table))
    insert_rows(session, table, [dict(row._mapping) | unlinked for row in page])
    connection = session.connection()
    connection.execute(delete(_PROGRESS).where(_PROGRESS.c.table_name == table.name))
    last_key = [_plain(value) for value in _key(table, page[-1])]
    connection.execute(_PROGRESS.insert().values(table_name=table.name, last_key=last_key))


async def _link_rows(reading: Connection, target: Database, table: Table) -> None:
    """Copy the references of rows to other rows of their table, once all of them are there."""
    names = _references_to_itself(table)
    if not names:
        return
    async for page in pages(reading, table):
        linked = [
            {f"key_{column.name}": row._mapping[column.name] for column in table.primary_key}
            | {name: row._mapping[name] for name in names}
            for row in page
            if any(row._mapping[name] is not None for name in names)
        ]
        await target.write(partial(update_rows, table=table, rows=linked))


async def _verify(reading: Connection, target: Database, tell: Told) -> int:
    """Return the number of rows. Raises DatabaseUnusable where the databases differ."""
    copied = await target.connect_for_reads(is_long=True)
    total = 0
    try:
        for table in _tables():
            there, here = await _sum(reading, table, tell), await _sum(copied, table, tell)
            if there != here:
                raise DatabaseUnusable(
                    f"The table {table.name} has {there.count} rows and the copy {here.count}, "
                    "or other values: the source was changed between two runs. "
                    "Copy it again, into a new database."
                )
            total += here.count
    finally:
        await copied.close()
    return total


async def _sum(connection: Connection, table: Table, tell: Told) -> _Sum:
    total = await connection.run(lambda session: count_rows(session, table))
    found = _Sum()
    async for page in pages(connection, table):
        for row in page:
            found = found.add(row)
        tell(f"{table.name}, checked", found.count, total)
    return found


def count_rows(session: Session, table: Table) -> int:
    return session.connection().execute(select(func.count()).select_from(table)).scalar_one()


def _last_key(session: Session, table: Table) -> list[Any] | None:
    """Return the key of the last row that was copied, or None."""
    last_key = _noted(session, table.name)
    if last_key is None:
        return None
    key = table.primary_key.columns
    return [column.type.python_type(value) for column, value in zip(key, last_key, strict=True)]


def _noted(session: Session, name: str) -> list[Any] | None:
    noted = select(_PROGRESS.c.last_key).where(_PROGRESS.c.table_name == name)
    found: list[Any] | None = session.connection().execute(noted).scalar_one_or_none()
    return found


def _key(table: Table, row: Row[Any]) -> list[Any]:
    return [row._mapping[column.name] for column in table.primary_key]


def _references_to_itself(table: Table) -> list[str]:
    return [
        column.name
        for column in table.c
        if any(reference.column.table is table for reference in column.foreign_keys)
    ]


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it; different values of one column stay different."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float | dict | list | None) else str(value)
