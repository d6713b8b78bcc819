"""The settings of the database, and of what the service keeps in it for a while."""

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from app.settings.section import KIB, Section

_Limit = Annotated[float, Field(ge=0.001, le=1_000_000)]
"""Seconds that PostgreSQL is told in milliseconds, of which 0 would be no limit."""


class DatabaseSettings(Section):
    heading: ClassVar[str] = "Database"

    database_url: str = Field(
        default="sqlite+aiosqlite:///data/ticket-activity.db",
        description=(
            "SQLAlchemy address of the database: a file of SQLite, as a path from the folder where "
            "the service starts (with four slashes from the root), or PostgreSQL, such as "
            "`postgresql+asyncpg://user:password@host/database`."
        ),
    )
    migrate_at_start: bool = Field(
        default=True,
        description="Migrate the database at the start; else a start refuses one that is behind.",
    )
    database_check_seconds: NonNegativeFloat = Field(
        default=5,
        description=(
            "How long a start looks through the SQLite file for damage, at most, in seconds; 0 for "
            "not at all."
        ),
    )
    database_start_seconds: NonNegativeFloat = Field(
        default=30, description="How long a start waits for PostgreSQL to answer, in seconds."
    )
    database_connect_seconds: PositiveFloat = Field(
        default=5, description="How long a connection to PostgreSQL may take to open, in seconds."
    )
    database_lock_seconds: _Limit = Field(
        default=5,
        description=(
            "How long a write waits for a lock of PostgreSQL, then it is BUSY, in seconds. A write "
            "that holds locks and does nothing for so long is rolled back."
        ),
    )
    database_statement_seconds: _Limit = Field(
        default=30, description="How long a statement may run in PostgreSQL, in seconds."
    )
    database_answer_seconds: PositiveFloat = Field(
        default=5,
        description=(
            "How long PostgreSQL may leave unanswered what needs no time, or whose time is over; "
            "then the connection is given up, in seconds."
        ),
    )
    database_poll_seconds: PositiveFloat = Field(
        default=1,
        description=(
            "How often PostgreSQL is asked for changes by other processes, beside listening for "
            "them, in seconds."
        ),
    )
    database_listen: bool = Field(
        default=True,
        description="Listen to PostgreSQL for changes by other processes; else it is only asked.",
    )
    database_pooler: bool = Field(
        default=False,
        description=(
            "A pooler in transaction mode, such as PgBouncer, stands before PostgreSQL: nothing is "
            "prepared, and nothing listens."
        ),
    )
    read_connections: PositiveInt = Field(
        default=4, description="Connections that the reads of all clients share."
    )
    read_queue_size: PositiveInt = Field(
        default=4096,
        description="Operations that may wait for a shared connection; one more is answered BUSY.",
    )
    long_read_connections: PositiveInt = Field(
        default=4, description="Connections for long reads; each serves one at a time."
    )
    max_long_reads_per_token: PositiveInt = Field(
        default=2, description="Long reads that one token may run at a time, in each process."
    )
    max_search_characters: PositiveInt = Field(
        default=256_000_000,
        description=(
            "Characters of messages that are not plain ASCII which the text searches of one "
            "operation may read."
        ),
    )
    timeline_cache_bytes: NonNegativeInt = Field(
        default=16 * KIB * KIB,
        description="Memory for cached pages and counts of timelines, in bytes.",
    )
    write_queue_size: PositiveInt = Field(
        default=4096,
        description="Commands that may wait for the writer; one more is answered BUSY.",
    )
    write_wait_seconds: PositiveFloat = Field(
        default=10,
        description="How long a command may wait for the writer, then it is BUSY, in seconds.",
    )
    write_batch_size: PositiveInt = Field(
        default=512, description="Commands that may share one transaction."
    )


class IdempotencySettings(Section):
    heading: ClassVar[str] = "Idempotency keys"

    idempotency_hours: PositiveFloat = Field(
        default=24, description="How long an Idempotency-Key and its answer are kept, in hours."
    )
    max_idempotency_keys_per_token: PositiveInt = Field(
        default=100_000,
        description="Idempotency keys of one token that may be kept, as counted once a minute.",
    )
    max_idempotent_answer_bytes: PositiveInt = Field(
        default=256 * KIB,
        description=(
            "Longest answer that is kept for an Idempotency-Key, in bytes. The request of a longer "
            "one has one effect all the same, but its repeat is answered anew."
        ),
    )
