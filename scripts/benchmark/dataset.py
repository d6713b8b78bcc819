"""What is in a database of the service that scripts/seed has filled, read without its code.

Ids are stored as 16 bytes or as 32 hexadecimal digits; both are read.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ACTIVITIES: Final = """
SELECT ticket_id, id, activity_type, is_private, created_at, actor_id, message, metadata,
    document_id, version
FROM ticket_activity
"""
_LONGEST: Final = """
SELECT ticket_id, count(*) FROM ticket_activity GROUP BY ticket_id ORDER BY count(*) DESC LIMIT 1
"""
_OTHERS: Final = """
SELECT id, ticket_id FROM ticket_activity WHERE activity_type != 'ticket_created' AND ticket_id != ?
"""


@dataclass(frozen=True)
class Dataset:
    """The ticket with the long timeline, and an activity of each other ticket."""

    long_ticket: str
    long_size: int
    entries: list[tuple[str, str]]
    """The id of an activity and that of its ticket."""


def read_only(file: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True)


def uuid_of(value: bytes | str) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(value)


def read_dataset(file: Path) -> Dataset:
    with closing(read_only(file)) as connection:
        long_ticket, size = connection.execute(_LONGEST).fetchone()
        others = connection.execute(_OTHERS, (long_ticket,)).fetchall()
    entries = {str(uuid_of(ticket)): str(uuid_of(id_)) for id_, ticket in others}
    return Dataset(str(uuid_of(long_ticket)), size, [(id_, to) for to, id_ in entries.items()])


def read_activities(file: str) -> Iterator[dict[str, Any]]:
    """Yield each activity as the textbook names its columns."""
    with closing(read_only(file)) as connection:
        for row in connection.execute(_ACTIVITIES):
            ticket, id_, kind, is_private, at, actor, message, metadata, document, version = row
            yield {
                "ticket_id": uuid_of(ticket),
                "id": uuid_of(id_),
                "activity_type": kind,
                "is_private": bool(is_private),
                "created_at": _EPOCH + timedelta(milliseconds=at),
                "actor_id": actor and uuid_of(actor),
                "message": message,
                "content": json.loads(metadata),
                "document_id": document and uuid_of(document),
                "version": version,
            }
