"""The command `retain`. It runs in short transactions, also while services use the database.

It can be stopped at any time: run again, it goes on.
"""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Final

from sqlmodel import Session

from app.activity.values import format_datetime, utc_now
from app.commands.databases import with_database
from app.commands.progress import show_progress
from app.environment import read_settings
from app.store.copying import Told
from app.store.engine import Database, roll_back
from app.store.erasure import count_tickets
from app.store.idempotency import forget_answers, forget_some_answers
from app.store.retention import Old, expire_cursors, find_old, remove_old

ANSWERS_AT_A_TIME: Final = 200


def remove(options: argparse.Namespace) -> None:
    """Say what is older than a time; with `--apply`, remove it."""
    before = utc_now() - options.older_than
    removing = partial(retain, before=before, tell=show_progress, applies=options.apply)
    counts = asyncio.run(with_database(read_settings(), removing))
    for kind, count in counts.items():
        print(f"{count} {kind}")
    print(
        f"Removed: they were from before {format_datetime(before)}."
        if options.apply
        else "Nothing is changed. Run it with --apply to remove them."
    )


async def retain(
    database: Database, before: datetime, tell: Told, *, applies: bool
) -> Counter[str]:
    """Count the entries and versions that are from before a time, and with `applies` remove them.

    Return the counts by what is counted.
    """
    counts = Counter({"entries": 0, "versions in the history": 0})
    if applies:
        await database.write(partial(expire_cursors, before=before))
    async with aclosing(_find_all(database, before, tell)) as found:
        async for old in found:
            counts.update({"entries": old.entries, "versions in the history": old.changes})
            if applies and old.changes:
                await _remove(database, old)
    if applies:
        await _forget_answers(database)
        await database.erase()
    return counts


async def _find_all(database: Database, before: datetime, tell: Told) -> AsyncGenerator[Old]:
    """Yield what is too old, a page of the history at a time. Hold no snapshot in between."""
    reading = await database.connect_for_reads(is_long=True)
    try:
        tickets = await reading.run(count_tickets)
        after, done = None, 0
        while True:
            old = await reading.run(partial(find_old, before=before, after=after))
            await reading.run(roll_back)
            if old.end is None:
                break
            done += old.tickets
            tell("tickets", min(done, tickets - 1), tickets)
            yield old
            after = old.end
        tell("tickets", tickets, tickets)
    finally:
        await reading.close()


async def _forget_answers(database: Database) -> None:
    """Forget the answers to requests: any of them may show what is removed now."""
    forget_some = partial(forget_some_answers, size=ANSWERS_AT_A_TIME)
    while await database.write(forget_some) == ANSWERS_AT_A_TIME:
        pass
    await database.write(forget_answers)


async def _remove(database: Database, old: Old) -> None:
    def remove_them(session: Session) -> None:
        remove_old(session, old)
        database.mark_erasure(session)

    begun_at = time.monotonic()
    await database.write(remove_them)
    # Services that wait for the lock of the file write meanwhile.
    await asyncio.sleep(time.monotonic() - begun_at)
