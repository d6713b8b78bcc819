"""Looks through an SQLite file for damage before it is served.

SQLite checks a page only when it reads it, and has no checksums: what it finds is damage to the
structure of the file, not to a text in it.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from struct import Struct
from typing import Final

from app.store.errors import DatabaseUnusable

_PAGE_BYTES: Final = Struct(">16xH")  # https://www.sqlite.org/fileformat.html#the_database_header

_STEPS: Final = 1000
"""Instructions of SQLite's virtual machine between two looks at the clock."""


def require_undamaged(file: Path, seconds: float) -> bool:
    """Look through the file for so long, and return whether all of it was seen.

    Raises DatabaseUnusable where it is damaged, with what to do.
    """
    if _has_log(file) and not file.stat().st_size:
        # SQLite would remove the log.
        raise _damaged(file, "it is empty, but its write-ahead log is not")
    end = time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(file)) as database:
            database.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            [[found]] = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            return False
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise _damaged(file, str(error)) from None
        why = str(error) if os.access(file.parent, os.W_OK) else "its folder cannot be written"
        raise DatabaseUnusable(f"Cannot use the database {file}: {why}.") from None
    if found != "ok":
        raise _damaged(file, " ".join(found.split()))
    if not _has_log(file) and (cut := _cut_off(file)):
        raise _damaged(file, cut)
    return True


def _has_log(file: Path) -> bool:
    log = file.with_name(f"{file.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _cut_off(file: Path) -> str | None:
    """Return what is missing at the end, of which SQLite would take a part of a page for zeros.

    With a write-ahead log it may be missing after a crash: SQLite finds it there.
    """
    with file.open("rb") as opened:
        head = opened.read(_PAGE_BYTES.size)
    if not head:
        return None
    [page_bytes] = _PAGE_BYTES.unpack(head)
    rest = file.stat().st_size % max(page_bytes, 512)  # 1 stands for 65536
    return f"its last page has {rest} of {page_bytes} bytes" if rest else None


def _damaged(file: Path, reason: str) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"The database {file} is damaged: {reason}. Keep a copy of it and of the files beside it, "
        "and put a backup in its place: `ticket-activity restore BACKUP --replace`."
    )
