"""Backs up the file of an SQLite database while it is in use, and puts a backup in its place.

A copy of the file by other tools misses what the write-ahead log holds, or mixes two states.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from app.activity.cursors import KEY_BYTES
from app.store.errors import DatabaseUnusable
from app.store.migrate import require_known_revisions
from app.store.sqlite import give_to_owner_of_folder

_WAIT_SECONDS: Final = 5
_JOURNALS: Final = ("-wal", "-shm", "-journal")


def back_up(source: Path, target: Path) -> int:
    """Write one state of the database to a new file, check it, and return its size in bytes.

    Readers and writers go on meanwhile. The target exists only once it is complete. Raises
    DatabaseUnusable.
    """
    if not source.exists():
        raise DatabaseUnusable(
            f"There is no database {source}; TICKET_ACTIVITY_DATABASE_URL names another."
        )
    _require_absent(target)
    with _written_in_full(target) as partial, _connected(source) as database:
        with closing(sqlite3.connect(partial)) as copy:
            # In one step: between two steps a writer would make it begin again, each time.
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = delete").close()
        _require_sound(partial)
    return target.stat().st_size


def restore(backup: Path, target: Path, *, replaces: bool) -> Path | None:
    """Put a copy of a backup in the place of the database, which nobody may use meanwhile.

    What was there is kept beside it; its path is returned. Cursors of feeds get a new key: a change
    after the backup and another one after the restore may have the same place in their ticket.
    Raises DatabaseUnusable, and has changed nothing then.
    """
    if not backup.exists():
        raise DatabaseUnusable(f"There is no backup {backup}.")
    if not replaces:
        _require_absent(target, "with --replace it is kept beside the backup's copy")
    kept = target.with_name(f"{target.name}.before-restore")
    _require_absent(kept, "move it away first")
    _require_unused(target)
    with _written_in_full(target) as partial:
        with _connected(backup) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        _require_sound(partial)
        _change_cursor_key(partial)
        give_to_owner_of_folder(partial)
        _move(target, kept)
    return kept if kept.exists() else None


def _require_absent(target: Path, otherwise: str = "name another") -> None:
    for file in (target, *(target.with_name(target.name + end) for end in _JOURNALS)):
        if file.exists():
            raise DatabaseUnusable(f"{file} exists already, and is left as it is: {otherwise}.")


def _require_unused(target: Path) -> None:
    """Move the write-ahead log into the file, which SQLite does only for who is alone with it."""
    if not target.exists():
        return
    try:
        with closing(sqlite3.connect(target, timeout=0)) as database:
            database.execute("PRAGMA journal_mode = delete").close()
    except sqlite3.OperationalError:
        raise DatabaseUnusable(f"{target} is in use: stop the service first.") from None
    except sqlite3.DatabaseError:
        return  # it is broken, which may be why it is replaced


def _move(source: Path, target: Path) -> None:
    for end in ("", *_JOURNALS):
        file = source.with_name(source.name + end)
        if file.exists():
            file.rename(target.with_name(target.name + end))


def _change_cursor_key(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'cursor_key'"
        if database.execute(tables).fetchone():  # else a migration makes a key
            key = secrets.token_bytes(KEY_BYTES)
            database.execute("UPDATE cursor_key SET key = ?", (key,)).close()


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection. Its errors become DatabaseUnusable."""
    try:
        address = f"{file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"Cannot read the database {file}: {error}.") from None


@contextmanager
def _written_in_full(target: Path) -> Iterator[Path]:
    """Yield a file, readable by its owner alone, which becomes the target when it is on disk."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        yield partial
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise DatabaseUnusable(f"Cannot write {target}: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_sound(file: Path) -> None:
    """Raise DatabaseUnusable unless the file is a whole database that this release can serve."""
    try:
        with closing(sqlite3.connect(file)) as database:
            [[found]] = database.execute("PRAGMA integrity_check(1)").fetchall()
            orphan = database.execute("PRAGMA foreign_key_check").fetchone()
            revisions = {row[0] for row in database.execute("SELECT * FROM alembic_version")}
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"The copy is not a database of this service: {error}.") from None
    if found != "ok" or orphan:
        raise DatabaseUnusable(f"The copy is damaged: {found if found != 'ok' else orphan}.")
    require_known_revisions(revisions)
