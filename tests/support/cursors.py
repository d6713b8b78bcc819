"""What only the holder of the key can read."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

from app.activity.cursors import FeedCursors


def seq_of(file: Path, ticket_id: str, cursor: str) -> int:
    """Read what clients cannot, with the key of the database: the place a cursor stands for."""
    with closing(sqlite3.connect(file)) as connection:
        [(key,)] = connection.execute("SELECT key FROM cursor_key")
    return FeedCursors(key).open(UUID(ticket_id), cursor)
