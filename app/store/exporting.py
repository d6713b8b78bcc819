"""Writes a database as lines of JSON, from one snapshot and with a page of rows in memory."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import orjson

from app.store.copying import Told, count_rows, pages
from app.store.engine import Connection, Database
from app.store.lines import KINDS, VERSION

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_LEFT_OUT: Final = ("mergedIntoId", "edition", "forgottenPublicSeq")
"""Columns of a ticket that its line has not: merges have lines of their own."""


async def export_lines(
    database: Database, exported_at: datetime, tell: Told, *, with_tokens: bool
) -> AsyncIterator[bytes]:
    """Yield the file, a page of lines at a time. Others may write meanwhile."""
    counts: Counter[str] = Counter()
    reading = await database.connect_for_reads(is_long=True)
    try:
        yield _encode({"kind": "header", "version": VERSION, "exportedAt": exported_at})
        for name in KINDS:
            if name != "token" or with_tokens:
                async for lines in _lines_of(reading, name, tell):
                    counts.update(line["kind"] for line in lines)
                    yield b"".join(map(_encode, lines))
            if name == "ticket":
                async for lines in _merges(reading):
                    counts["merge"] += len(lines)
                    yield b"".join(map(_encode, lines))
    finally:
        await reading.close()
    yield _encode({"kind": "end", "counts": counts})


async def _lines_of(
    reading: Connection, name: str, tell: Told
) -> AsyncIterator[list[dict[str, Any]]]:
    kind = KINDS[name]
    total = await reading.run(lambda session: count_rows(session, kind.table))
    done = 0
    async for page in pages(reading, kind.table):
        lines = [kind.line(row) for row in page]
        for line in lines:
            for member in _LEFT_OUT:
                line.pop(member, None)
        yield lines
        done += len(page)
        tell(kind.table.name, done, total)


async def _merges(reading: Connection) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield what tickets are merged into: it may come after them."""
    async for page in pages(reading, KINDS["ticket"].table):
        merged = [row for row in page if row.merged_into_id]
        yield [
            {"kind": "merge", "ticketId": row.id, "mergedIntoId": row.merged_into_id}
            for row in merged
        ]


def _encode(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, default=str, option=_OPTIONS)  # asyncpg has a UUID of its own
