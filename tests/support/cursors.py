"""Decrypts feed cursors with the key of the database."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

from app.activity.cursors import FeedCursors
from tests.support.service import Service


def seq_of(service: Service, ticket_id: str, cursor: str) -> int:
    """Return the `seq` of a feed cursor, which clients cannot read."""
    cursors: FeedCursors = service.app.state.timeline.cursors
    return cursors.open(UUID(ticket_id), cursor).seq


def seq_in(file: Path, ticket_id: str, cursor: str) -> int:
    """Return the `seq` of a feed cursor by the key in the database file of another process."""
    with closing(sqlite3.connect(file)) as connection:
        [(key,)] = connection.execute("SELECT key FROM cursor_key")
    return FeedCursors(key).open(UUID(ticket_id), cursor).seq
