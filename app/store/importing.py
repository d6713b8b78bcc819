"""Reads an export into a database, line by line, each once however often it is read.

A line whose row is there already is skipped; where another row is there, the line is wrong. So an
import that was cut off is run again from the start.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, BinaryIO, Final
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Row, Select, Table, and_, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from app.activity.actors import ActorUpdate
from app.activity.input_limits import (
    InputLimits,
    check_json_object,
    check_message,
    check_reason,
    fault_in_text,
)
from app.errors import InvalidInput
from app.store import rows
from app.store.bulk import insert_rows, update_rows
from app.store.copying import Told
from app.store.edition import begin_edition
from app.store.engine import Database
from app.store.inserting import OWNERS, NotAllNew, Numbered, hold_what_changes, insert_new
from app.store.lines import KINDS, LINES, Values
from app.store.parameters import are_among, is_among

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
_BATCH_LINES: Final = 5000
_BATCH_BYTES: Final = 8 * 1024 * 1024

Keyed = dict[tuple[Any, ...], Mapping[str, Any]]


class LineWrong(Exception):
    """A line is refused. The message is for the operator."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"line {number}: {message}")


Refused = Callable[[LineWrong], None]
"""Takes a wrong line; raises it to stop."""


@dataclass(slots=True)
class _Batch:
    """Lines that are stored in one transaction, by kind, each with its number."""

    lines: dict[str, list[Numbered]] = field(default_factory=dict)
    count: int = 0
    size: int = 0

    def add(self, number: int, line: Values, size: int) -> None:
        self.lines.setdefault(line["kind"], []).append((number, line))
        self.count += 1
        self.size += size

    @property
    def is_full(self) -> bool:
        return self.count >= _BATCH_LINES or self.size >= _BATCH_BYTES


@dataclass(slots=True)
class Importer:
    """Imports one file. `refuse` takes each wrong line; what it does not raise is left out."""

    database: Database
    limits: InputLimits
    refuse: Refused
    tell: Told
    counts: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _batch: _Batch = field(default_factory=_Batch)
    _end: Values | None = None

    async def read(self, file: BinaryIO, size: int) -> None:
        """Import all lines. Raises LineWrong if `refuse` does, with everything before it stored."""
        done = 0
        try:
            for text in iter(partial(file.readline, MAX_LINE_BYTES), b""):
                done += len(text)
                self._number += 1
                try:
                    if len(text) == MAX_LINE_BYTES and not text.endswith(b"\n"):
                        raise self._wrong(f"it is longer than {MAX_LINE_BYTES} bytes")
                    self._take(text)
                except LineWrong as error:
                    self.refuse(error)
                if self._batch.is_full:
                    await self._flush()
                    self.tell("read", done, size)
        finally:
            await self._flush()
        self.tell("read", done, size)
        self._require_whole()
        await self._require_consistent()

    def _take(self, text: bytes) -> None:
        if self._end:
            raise self._wrong("it comes after the end line")
        try:
            line = self._parse(text)
        except InvalidInput as error:
            raise self._wrong(error.message) from None
        kind = line["kind"]
        if (self._number == 1) != (kind == "header"):
            raise self._wrong("the first line, and no other, is the header")
        if kind == "end":
            self._end = line
        elif kind != "header":
            self.counts[kind] += 1
            self._batch.add(self._number, line, len(text))

    def _parse(self, text: bytes) -> Values:
        """Read a line. Raises InvalidInput that names the member."""
        try:
            line = LINES.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["type"] == "union_tag_not_found":
                raise InvalidInput(
                    "it has no member kind, which each line of an export has; tickets of another "
                    "system need --format"
                ) from None
            place = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInput(f"{place}: {first['msg']}") from None
        if line["kind"] == "entry" or line["kind"] == "change":
            check_message(line["message"], self.limits)
            check_json_object(line["metadata"], self.limits, "metadata")
        if line["kind"] == "change" and line["reason"] is not None:
            check_reason(line["reason"])
        elif line["kind"] == "actor":
            ActorUpdate(UUID(line["id"]), line["name"], line["avatar_url"]).check()
        elif line["kind"] == "token" and (fault := fault_in_text(line["name"])):
            raise InvalidInput(f"name {fault}.")
        return line

    def _wrong(self, message: str) -> LineWrong:
        return LineWrong(self._number, message)

    async def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.count:
            return
        try:
            wrong = await self._store(batch)
        except IntegrityError:
            message = f"a row of the last {batch.count} lines contradicts the database"
            raise self._wrong(message) from None
        for error in wrong:
            self.refuse(error)

    async def _store(self, batch: _Batch) -> list[LineWrong]:
        """Store a batch in one transaction, and return the lines that contradict what is there."""
        try:
            await self.database.write(partial(insert_new, batch.lines))
        except NotAllNew:
            return await self.database.write(partial(_store, batch))
        return []

    def _require_whole(self) -> None:
        if self._end is None:
            raise self._wrong("the file is cut off: it has no end line")
        expected = {name: count for name, count in self._end["counts"].items() if count}
        if expected != dict(self.counts):
            raise self._wrong(f"the end line counts {expected}; the file has {dict(self.counts)}")

    async def _require_consistent(self) -> None:
        """Raise LineWrong where the history is not that of the tickets and entries."""
        for subject, statement in _CONTRADICTIONS.items():
            found = await self.database.read(partial(_first, statement))
            if found is not None:
                raise self._wrong(f"{subject} {found} is not what its history says")


def _first(statement: Select[Any], session: Session) -> UUID | None:
    return session.connection().execute(statement.limit(1)).scalar_one_or_none()


_TICKET, _ENTRY, _CHANGE = rows.TICKET.c, rows.ACTIVITY.c, rows.CHANGE.c
_changes: Final = (
    select(_CHANGE.ticket_id, func.count().label("count"), func.max(_CHANGE.seq).label("last"))
    .join(rows.TICKET, _TICKET.id == _CHANGE.ticket_id)
    .where(_CHANGE.seq > _TICKET.forgotten_seq)
    .group_by(_CHANGE.ticket_id)
    .subquery()
)
_CONTRADICTIONS: Final = {
    "the ticket": select(_TICKET.id)
    .outerjoin(_changes, _changes.c.ticket_id == _TICKET.id)
    .where(
        (func.coalesce(_changes.c.count, 0) != _TICKET.last_seq - _TICKET.forgotten_seq)
        | (_changes.c.last != _TICKET.last_seq)
    ),
    "the entry": select(_ENTRY.id).where(
        ~exists().where(
            and_(
                _CHANGE.ticket_id == _ENTRY.ticket_id,
                _CHANGE.activity_id == _ENTRY.id,
                _CHANGE.version == _ENTRY.version,
            )
        )
    ),
}


def _store(batch: _Batch, session: Session) -> list[LineWrong]:
    """Store the lines of a batch that are not there yet, and return those that contradict it."""
    hold_what_changes(batch.lines, session)
    wrong: list[LineWrong] = []
    for name in KINDS:
        if given := batch.lines.get(name):
            read = [(number, KINDS[name].row(line)) for number, line in given]
            wrong += _store_rows(session, name, read)
    return wrong + _store_merges(session, batch.lines.get("merge", ()))


def _store_rows(
    session: Session, name: str, given: Sequence[tuple[int, dict[str, Any]]]
) -> list[LineWrong]:
    """Insert the rows that are not there yet."""
    table = KINDS[name].table
    read = [row for _, row in given]
    there = _existing(session, table, read)
    place = _Place.of(session, name, read)
    wrong: list[LineWrong] = []
    new: list[dict[str, Any]] = []
    for number, row in given:
        key = _key(table, row)
        if (before := there.get(key)) is not None:
            if any(before[member] != value for member, value in row.items()):
                wrong.append(LineWrong(number, f"there is another {name} in its place already"))
        elif reason := place.mistake(row):
            wrong.append(LineWrong(number, reason))
        else:
            there[key] = row
            new.append(row)
    insert_rows(session, table, new)
    if name == "entry" and new:
        begin_edition(session, {row["ticket_id"] for row in new})
    if name in OWNERS:
        insert_rows(session, rows.NODE, [_node(name, row) for row in new])
    return wrong


def _node(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "ticket_id": row[OWNERS[name]]}


@dataclass(frozen=True, slots=True)
class _Place:
    """Whether new rows of a kind may be inserted: whose ids are taken, whose parents are there."""

    name: str
    taken: set[UUID]
    parents: Collection[tuple[Any, ...]]

    @classmethod
    def of(cls, session: Session, name: str, given: Sequence[Mapping[str, Any]]) -> "_Place":
        taken: set[UUID] = set()
        if name in OWNERS:
            taken = {id_ for (id_,) in _existing_keys(session, rows.NODE, given)}
        parents = {_parent(name, row) for row in given if name in _PARENTS}
        if not parents:
            return cls(name, taken, ())
        table, members = _PARENTS[name]
        wanted = [dict(zip(members, parent, strict=True)) for parent in parents]
        return cls(name, taken, _existing_keys(session, table, wanted))

    def mistake(self, row: Mapping[str, Any]) -> str | None:
        """Return why the row may not be inserted. The id of one that may is taken then."""
        if self.name in OWNERS and row["id"] in self.taken:
            return "its id is in use already"
        if self.name in _PARENTS and _parent(self.name, row) not in self.parents:
            return f"its {'ticket' if self.name == 'entry' else 'entry'} is not there"
        if self.name in OWNERS:
            self.taken.add(row["id"])
        return None


_PARENTS: Final = {
    "entry": (rows.TICKET, ("id",)),
    "change": (rows.ACTIVITY, ("ticket_id", "id")),
}


def _parent(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key of the row that this one belongs to."""
    return (row["ticket_id"],) if name == "entry" else (row["ticket_id"], row["activity_id"])


def _store_merges(session: Session, lines: Sequence[Numbered]) -> list[LineWrong]:
    """Note what tickets are merged into, but for lines that name a ticket which is not there."""
    read = [(number, UUID(m["ticket_id"]), UUID(m["merged_into_id"])) for number, m in lines]
    ids = {id_ for _, *merge in read for id_ in merge}
    there = {id_ for (id_,) in _existing_keys(session, rows.TICKET, [{"id": id_} for id_ in ids])}
    merged = {source: target for _, source, target in read if {source, target} <= there}
    update_rows(
        session,
        rows.TICKET,
        [{"key_id": source, "merged_into_id": target} for source, target in sorted(merged.items())],
    )
    return [
        LineWrong(number, "one of its tickets is not there")
        for number, source, target in read
        if not {source, target} <= there
    ]


def _existing(session: Session, table: Table, given: Sequence[Mapping[str, Any]]) -> Keyed:
    """Return the rows that have the keys of these."""
    found = _select(session, table, table, given)
    return {_key(table, row): row for row in (dict(one._mapping) for one in found)}


def _existing_keys(
    session: Session, table: Table, given: Sequence[Mapping[str, Any]]
) -> set[tuple[Any, ...]]:
    """Return those of the keys of these that are there."""
    return {tuple(row) for row in _select(session, table, table.primary_key, given)}


def _select(
    session: Session, table: Table, what: Any, given: Sequence[Mapping[str, Any]]
) -> Iterable[Row[Any]]:
    first, *others = table.primary_key
    keys = [_key(table, row) for row in given]
    condition = are_among(first, others[0], "keys") if others else is_among(first, "keys")
    columns = what.columns if what is table else tuple(what)
    values = keys if others else [value for (value,) in keys]
    return session.connection().execute(select(*columns).where(condition), {"keys": values})


_KEYS: Final = {
    table: itemgetter(*(column.name for column in table.primary_key))
    for table in (rows.NODE, *(kind.table for kind in KINDS.values()))
}


def _key(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    key = _KEYS[table](row)
    return key if isinstance(key, tuple) else (key,)
