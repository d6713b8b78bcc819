"""The lines of an export: what each kind holds, and which row of which table it is.

The models are the format's documentation too: `line_schema` is their JSON Schema.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel
from sqlalchemy import Row, Table

from app.activity.state import ActivityType, ChangeType
from app.activity.values import UUID_PATTERN, truncate_to_milliseconds
from app.auth import Scope
from app.store import rows

VERSION: Final = 1

Id = Annotated[str, Field(pattern=UUID_PATTERN)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[int, Field(ge=1, lt=2**63)]


class _Line(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", alias_generator=to_camel, frozen=True, ser_json_inf_nan="null"
    )


class HeaderLine(_Line):
    """The first line."""

    kind: Literal["header"]
    version: Literal[1]
    exported_at: AwareDatetime


class TicketLine(_Line):
    """A ticket. All tickets come before all entries."""

    kind: Literal["ticket"]
    id: Id
    created_at: AwareDatetime
    last_seq: Number
    last_changed_at: AwareDatetime


class MergeLine(_Line):
    """That a ticket is merged into another one; after both."""

    kind: Literal["merge"]
    ticket_id: Id
    merged_into_id: Id


class EntryLine(_Line):
    """An entry as it is now. All entries come before all changes."""

    kind: Literal["entry"]
    ticket_id: Id
    id: Id
    activity_type: ActivityType
    is_private: bool
    created_at: AwareDatetime
    actor_id: Id | None
    message: str | None
    metadata: dict[str, Any]
    document_id: Id | None
    version: Number
    updated_at: AwareDatetime
    updated_by_id: Id | None
    deleted_at: AwareDatetime | None
    redacted_version: Number | None


class ChangeLine(_Line):
    """One change of the history: what the entry held after it."""

    kind: Literal["change"]
    ticket_id: Id
    seq: Number
    activity_id: Id
    version: Number
    change_type: ChangeType
    changed_at: AwareDatetime
    changed_by_id: Id | None
    message: str | None
    metadata: dict[str, Any]
    is_private: bool
    was_private: bool | None
    reason: str | None
    recorded_at: AwareDatetime | None
    recorded_by_id: Id | None


class ActorLine(_Line):
    """What people call an actor."""

    kind: Literal["actor"]
    id: Id
    name: str | None
    avatar_url: str | None
    updated_at: AwareDatetime


class TokenLine(_Line):
    """An access token, without its secret. Only if the export was asked for tokens."""

    kind: Literal["token"]
    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    name: str
    actor_id: Id
    scopes: list[Scope]
    secret_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class EndLine(_Line):
    """The last line: how many lines of each kind there are. Without it the file is cut off."""

    kind: Literal["end"]
    counts: dict[Literal["ticket", "merge", "entry", "change", "actor", "token"], Count]


RowLine = TicketLine | EntryLine | ChangeLine | ActorLine | TokenLine
Line = HeaderLine | RowLine | MergeLine | EndLine
LINES: Final[TypeAdapter[Line]] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of line that is a row of a table."""

    name: str
    model: type[_Line]
    table: Table

    def line(self, row: Row[Any]) -> dict[str, Any]:
        """Return a row as a line, ready to be encoded."""
        return {"kind": self.name, **dict(zip(_MEMBERS[self.name], row, strict=True))}

    def row(self, line: _Line) -> dict[str, Any]:
        """Return a line as a row."""
        return {
            name: convert(getattr(line, name)) for name, convert in _converters(self.model).items()
        }


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("ticket", TicketLine, rows.TICKET),
        Kind("entry", EntryLine, rows.ACTIVITY),
        Kind("change", ChangeLine, rows.CHANGE),
        Kind("actor", ActorLine, rows.ACTOR),
        Kind("token", TokenLine, rows.TOKEN),
    )
}


_MEMBERS: Final = {
    name: [to_camel(str(column.name)) for column in kind.table.columns]
    for name, kind in KINDS.items()
}


def line_schema() -> dict[str, Any]:
    """Return the JSON Schema of one line."""
    return LINES.json_schema()


def _as_is(value: Any) -> Any:
    return value


def _uuid(value: str | None) -> UUID | None:
    return UUID(value) if value else None


def _time(value: datetime | None) -> datetime | None:
    return truncate_to_milliseconds(value) if value else None


def _of_field(model: type[_Line], name: str) -> Callable[[Any], Any]:
    if name.endswith("_at"):
        return _time
    is_uuid = name == "id" or name.endswith("_id")
    return _uuid if (is_uuid and model is not TokenLine) or name == "actor_id" else _as_is


_CONVERTERS: Final[dict[type[_Line], Mapping[str, Callable[[Any], Any]]]] = {
    kind.model: {
        name: _of_field(kind.model, name) for name in kind.model.model_fields if name != "kind"
    }
    for kind in KINDS.values()
}


def _converters(model: type[_Line]) -> Mapping[str, Callable[[Any], Any]]:
    return _CONVERTERS[model]
