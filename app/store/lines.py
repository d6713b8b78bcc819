"""The lines of an export: what each kind holds, and which row of which table it is.

The types are the format's documentation too: `line_schema` is their JSON Schema. Lines are
dictionaries, which are made in half the time of objects.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Any, Final, Literal, NotRequired
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, TypeAdapter, with_config
from pydantic.alias_generators import to_camel
from sqlalchemy import Row, Table
from typing_extensions import TypedDict  # pydantic takes that of Python from 3.12 on only

from app.activity.state import ActivityType, ChangeType
from app.activity.values import EPOCH, MILLISECOND, UUID_PATTERN, truncate_to_milliseconds
from app.auth import Scope
from app.json_text import dump_json
from app.store import rows

VERSION: Final = 1

Id = Annotated[str, Field(pattern=UUID_PATTERN)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[int, Field(ge=1, lt=2**63)]
Version = Annotated[int, Field(ge=1, lt=2**31)]


def _in_utc(time: datetime) -> datetime:
    """Return a time in UTC. Raise ValueError where UTC has no such year."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("its year in UTC must be from 1 to 9999") from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]

_strict = with_config(ConfigDict(strict=True, extra="forbid", alias_generator=to_camel))


@_strict
class HeaderLine(TypedDict):
    """The first line."""

    kind: Literal["header"]
    version: Literal[1]
    exported_at: Time


@_strict
class TicketLine(TypedDict):
    """A ticket. All tickets come before all entries. It has all changes after `forgottenSeq`."""

    kind: Literal["ticket"]
    id: Id
    created_at: Time
    last_seq: Number
    last_changed_at: Time
    forgotten_seq: NotRequired[Annotated[Count, Field(default=0)]]


@_strict
class MergeLine(TypedDict):
    """That a ticket is merged into another one; after both."""

    kind: Literal["merge"]
    ticket_id: Id
    merged_into_id: Id


@_strict
class EntryLine(TypedDict):
    """An entry as it is now. All entries come before all changes."""

    kind: Literal["entry"]
    ticket_id: Id
    id: Id
    activity_type: ActivityType
    is_private: bool
    created_at: Time
    actor_id: Id | None
    message: str | None
    metadata: dict[str, Any]
    document_id: Id | None
    version: Version
    updated_at: Time
    updated_by_id: Id | None
    deleted_at: Time | None
    redacted_version: Version | None
    first_version: NotRequired[Annotated[Version, Field(default=1)]]


@_strict
class ChangeLine(TypedDict):
    """One change of the history: what the entry held after it."""

    kind: Literal["change"]
    ticket_id: Id
    seq: Number
    activity_id: Id
    version: Version
    change_type: ChangeType
    changed_at: Time
    changed_by_id: Id | None
    message: str | None
    metadata: dict[str, Any]
    is_private: bool
    was_private: bool | None
    reason: str | None
    recorded_at: Time | None
    recorded_by_id: Id | None


@_strict
class ActorLine(TypedDict):
    """What people call an actor."""

    kind: Literal["actor"]
    id: Id
    name: str | None
    avatar_url: str | None
    updated_at: Time


@_strict
class TokenLine(TypedDict):
    """An access token, without its secret. Only if the export was asked for tokens."""

    kind: Literal["token"]
    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    name: str
    actor_id: Id
    scopes: list[Scope]
    secret_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


@_strict
class EndLine(TypedDict):
    """The last line: how many lines of each kind there are. Without it the file is cut off."""

    kind: Literal["end"]
    counts: dict[Literal["ticket", "merge", "entry", "change", "actor", "token"], Count]


RowLine = TicketLine | EntryLine | ChangeLine | ActorLine | TokenLine
Line = HeaderLine | RowLine | MergeLine | EndLine
LINES: Final[TypeAdapter[Line]] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])

Values = Mapping[str, Any]
"""A line that has been read, by the names of columns."""

Converter = Callable[[Any], Any]


def _as_is(value: Any) -> Any:
    return value


def _uuid(value: str | None) -> UUID | None:
    return UUID(value) if value else None


def _time(value: datetime | None) -> datetime | None:
    return truncate_to_milliseconds(value) if value else None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of line that is a row of a table."""

    name: str
    model: Any
    table: Table
    columns: Sequence[str]
    _members: Callable[[Values], Sequence[Any]]
    _converters: Mapping[str, Converter]
    _places: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, name: str, model: Any, table: Table) -> "Kind":
        columns = [member for member in model.__annotations__ if member != "kind"]
        kinds = [_kind_of(model, column) for column in columns]
        return cls(
            name,
            model,
            table,
            columns,
            itemgetter(*columns),
            {column: _CONVERTERS[kind] for column, kind in zip(columns, kinds, strict=True)},
            {
                kind: [place for place, one in enumerate(kinds) if one == kind]
                for kind in _CONVERTERS
            },
        )

    def line(self, row: Row[Any]) -> dict[str, Any]:
        """Return a row as a line, ready to be encoded."""
        return {"kind": self.name, **dict(zip(_MEMBERS[self.name], row, strict=True))}

    def row(self, line: Values) -> dict[str, Any]:
        """Return a line as a row."""
        return {name: convert(line[name]) for name, convert in self._converters.items()}

    def sqlite_row(self, line: Values) -> tuple[Any, ...]:
        """Return the columns of a line as the driver takes them: what SQLAlchemy makes of `row`.

        Written out for each type, because much of the time of an import is spent here.
        """
        values = self._plain(line)
        for place in self._places["uuid"]:
            if (text := values[place]) is not None:
                values[place] = text.replace("-", "").lower()
        for place in self._places["time"]:
            if (time := values[place]) is not None:
                values[place] = (time - EPOCH) // MILLISECOND
        return tuple(values)

    def postgresql_row(self, line: Values) -> tuple[Any, ...]:
        """Return the columns of a line as asyncpg takes them."""
        values = self._plain(line)
        for place in self._places["time"]:
            values[place] = _time(values[place])
        return tuple(values)

    def _plain(self, line: Values) -> list[Any]:
        values = [*self._members(line)]
        for place in self._places["json"]:
            values[place] = dump_json(values[place])
        for place in self._places["enum"]:
            values[place] = values[place].value
        return values


def _kind_of(model: Any, name: str) -> str:
    if name.endswith("_at"):
        return "time"
    if name in {"metadata", "scopes"}:
        return "json"
    if name.endswith("_type"):
        return "enum"
    is_uuid = name == "id" or name.endswith("_id")
    return "uuid" if (is_uuid and model is not TokenLine) or name == "actor_id" else "other"


_CONVERTERS: Final[dict[str, Converter]] = {
    "uuid": _uuid,
    "time": _time,
    "json": _as_is,
    "enum": _as_is,
    "other": _as_is,
}

KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind.of("ticket", TicketLine, rows.TICKET),
        Kind.of("entry", EntryLine, rows.ACTIVITY),
        Kind.of("change", ChangeLine, rows.CHANGE),
        Kind.of("actor", ActorLine, rows.ACTOR),
        Kind.of("token", TokenLine, rows.TOKEN),
    )
}


_MEMBERS: Final = {
    name: [to_camel(str(column.name)) for column in kind.table.columns]
    for name, kind in KINDS.items()
}


def line_schema() -> dict[str, Any]:
    """Return the JSON Schema of one line."""
    return LINES.json_schema()
