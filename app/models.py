"""The tables. Primary keys start with the ticket, so the rows of one ticket are stored together.

`table=True` models do not validate: what is stored has been checked by the command that made it.
"""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import BigInteger, Dialect, Enum, Index, Text, TypeDecorator, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import JSON, TypeEngine
from sqlmodel import Field, SQLModel

from app.activity.state import ActivityType, ChangeType
from app.activity.values import JSONObject, from_milliseconds, to_milliseconds

_WITHOUT_ROWID = {"sqlite_with_rowid": False}

NOT_FORGOTTEN: Final = "is_forgotten IS FALSE"
"""A statement must say it in these words, or SQLite does not use the index."""


class UtcMilliseconds(TypeDecorator[datetime]):
    """A UTC time to the millisecond: `timestamptz` on PostgreSQL, epoch milliseconds elsewhere."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        is_postgresql = dialect.name == "postgresql"
        return dialect.type_descriptor(
            TIMESTAMP(timezone=True, precision=3) if is_postgresql else BigInteger()
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return to_milliseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None or isinstance(value, datetime):
            return value
        return from_milliseconds(value)


def _enum(enum: type[ActivityType] | type[ChangeType]) -> Enum:
    """Stored as the text of the REST contract, without a type or constraint of the engine."""
    return Enum(
        enum,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def _index_of_some(name: str, *columns: str, where: str) -> Index:
    """Return a partial index, which writes to rows outside of it need not update."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _listed_index(name: str, *columns: str) -> Index:
    """Return an index of the entries that are not deleted, in one order of lists."""
    return _index_of_some(name, *columns, where="deleted_at IS NULL")


def _count_from(first: int) -> Any:
    """Return a count that rows have which are inserted without it."""
    return Field(sa_type=BigInteger, sa_column_kwargs={"server_default": str(first)})


class Ticket(SQLModel, table=True):
    """`last_seq` counts the changes of the ticket. A unit of work locks this row first.

    `forgotten_seq` is the newest change that was removed because it was too old,
    `forgotten_public_seq` the newest of those whose entry was public before or after it. `edition`
    counts how often rows of the ticket were removed or rewritten by anything but a change.
    """

    __tablename__: ClassVar[str] = "ticket"
    __table_args__ = (
        _index_of_some("ix_ticket_merged", "merged_into_id", where="merged_into_id IS NOT NULL"),
        _WITHOUT_ROWID,
    )

    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_type=UtcMilliseconds)
    last_seq: int = Field(sa_type=BigInteger)
    last_changed_at: datetime = Field(sa_type=UtcMilliseconds)
    merged_into_id: UUID | None = Field(default=None, foreign_key="ticket.id")
    forgotten_seq: int = _count_from(0)
    forgotten_public_seq: int = _count_from(0)
    edition: int = _count_from(0)


class Node(SQLModel, table=True):
    """Every id in use, of a ticket or of an entry, with its ticket. A ticket's row names itself.

    The primary key keeps two tickets or entries from having the same id. The row of an entry that
    was too old stays: a repeated creation must not bring it back.
    """

    __tablename__: ClassVar[str] = "node"
    __table_args__ = _WITHOUT_ROWID

    id: UUID = Field(primary_key=True)
    ticket_id: UUID = Field(foreign_key="ticket.id")


class TicketActivity(SQLModel, table=True):
    """The entries as they are now.

    The row of a deleted entry stays, with `deleted_at`: its history refers to it. `first_version`
    is the oldest version that the history still has.
    """

    __tablename__: ClassVar[str] = "ticket_activity"
    __table_args__ = (
        _listed_index(
            "ix_ticket_activity_created",
            "ticket_id",
            "created_at",
            "id",
            # What decides who sees an entry, so that counts read this index and nothing else.
            "deleted_at",
            "is_private",
            "actor_id",
        ),
        _listed_index("ix_ticket_activity_updated", "ticket_id", "updated_at", "id"),
        _WITHOUT_ROWID,
    )

    ticket_id: UUID = Field(primary_key=True, foreign_key="ticket.id")
    id: UUID = Field(primary_key=True)
    activity_type: ActivityType = Field(sa_type=_enum(ActivityType))
    is_private: bool
    created_at: datetime = Field(sa_type=UtcMilliseconds)
    actor_id: UUID | None
    message: str | None = Field(sa_type=Text)
    metadata_: JSONObject = Field(sa_type=JSON, sa_column_kwargs={"name": "metadata"})
    document_id: UUID | None
    version: int
    updated_at: datetime = Field(sa_type=UtcMilliseconds)
    updated_by_id: UUID | None
    deleted_at: datetime | None = Field(sa_type=UtcMilliseconds)
    redacted_version: int | None
    first_version: int = Field(sa_column_kwargs={"server_default": "1"})


class TicketActivityChange(SQLModel, table=True):
    """The history: what each entry held after each change, in the order of the ticket's `seq`."""

    __tablename__: ClassVar[str] = "ticket_activity_change"
    __table_args__ = (
        Index(
            "uq_ticket_activity_change_version", "ticket_id", "activity_id", "version", unique=True
        ),
        _WITHOUT_ROWID,
    )

    ticket_id: UUID = Field(primary_key=True, foreign_key="ticket.id")
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    activity_id: UUID
    version: int
    change_type: ChangeType = Field(sa_type=_enum(ChangeType))
    changed_at: datetime = Field(sa_type=UtcMilliseconds)
    changed_by_id: UUID | None
    message: str | None = Field(sa_type=Text)
    metadata_: JSONObject = Field(sa_type=JSON, sa_column_kwargs={"name": "metadata"})
    is_private: bool
    was_private: bool | None
    reason: str | None = Field(sa_type=Text)
    recorded_at: datetime | None = Field(sa_type=UtcMilliseconds)
    recorded_by_id: UUID | None


class CursorKey(SQLModel, table=True):
    """The key that encrypts feed cursors. There is one row, which a migration inserted.

    Cursors of positions before `valid_since` have expired.
    """

    __tablename__: ClassVar[str] = "cursor_key"
    __table_args__ = _WITHOUT_ROWID

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    key: bytes
    valid_since: datetime | None = Field(default=None, sa_type=UtcMilliseconds)


class AccessToken(SQLModel, table=True):
    """Issued tokens. `secret_hash` is a SHA-256 in hexadecimal; the secret itself is not stored."""

    __tablename__: ClassVar[str] = "access_token"
    __table_args__ = _WITHOUT_ROWID

    id: str = Field(primary_key=True)
    name: str
    actor_id: UUID
    scopes: list[str] = Field(sa_type=JSON)
    secret_hash: str
    created_at: datetime = Field(sa_type=UtcMilliseconds)
    expires_at: datetime | None = Field(sa_type=UtcMilliseconds)
    revoked_at: datetime | None = Field(sa_type=UtcMilliseconds)
    last_used_at: datetime | None = Field(sa_type=UtcMilliseconds)


class IdempotencyKey(SQLModel, table=True):
    """The requests that came with an idempotency key, for as long as their answers are kept.

    `verdicts` are the outcomes of their commands, by number. The answer is null until it is known,
    and where it is too large. `is_forgotten` is set by a redaction, after which no answer is kept.
    """

    __tablename__: ClassVar[str] = "idempotency_key"
    __table_args__ = (
        Index("ix_idempotency_key_created", "created_at", "owner"),
        _index_of_some("ix_idempotency_key_kept", "owner", "key", where=NOT_FORGOTTEN),
        _WITHOUT_ROWID,
    )

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    actor_id: UUID
    fingerprint: bytes
    created_at: datetime = Field(sa_type=UtcMilliseconds)
    verdicts: dict[str, Any] = Field(sa_type=JSON)
    status: int | None
    headers: dict[str, str] | None = Field(sa_type=JSON(none_as_null=True))
    body: bytes | None
    is_forgotten: bool


class ActorErasure(SQLModel, table=True):
    """The erasures of actors that have begun and not ended, so that they can go on."""

    __tablename__: ClassVar[str] = "actor_erasure"
    __table_args__ = _WITHOUT_ROWID

    actor_id: UUID = Field(primary_key=True)
    replacement_id: UUID


class Actor(SQLModel, table=True):
    """What people call the actors. Of one who was never named there is no row."""

    __tablename__: ClassVar[str] = "actor"
    __table_args__ = _WITHOUT_ROWID

    id: UUID = Field(primary_key=True)
    name: str | None = Field(sa_type=Text)
    avatar_url: str | None = Field(sa_type=Text)
    updated_at: datetime = Field(sa_type=UtcMilliseconds)
