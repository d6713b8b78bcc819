"""Fills a new SQLite file: one ticket with a long timeline, and many with a short one.

The same arguments give the same rows.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import insert, update
from sqlmodel import Session

from app.activity.state import Activity, ActivityType, Change, ChangeType, Ticket
from app.activity.values import to_milliseconds
from app.store import rows
from app.store.database import open_database
from app.store.engine import Database
from app.store.migrate import migrate

SHORT_TIMELINE: Final = 2
CHUNK_SIZE: Final = 5000 * SHORT_TIMELINE
"""Changes that share one transaction; never a part of a short timeline."""

STEP: Final = timedelta(seconds=1)
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)

EDITED_AFTER: Final = 45
"""An entry is edited after this many others have followed it."""

TYPES: Final = (
    ActivityType.COMMENT,
    ActivityType.VIEW,
    ActivityType.FIELD_CHANGE,
    ActivityType.COMMENT,
    ActivityType.DOCUMENT_UPLOAD,
    ActivityType.VIEW,
    ActivityType.COMMENT,
)
VOCABULARY: Final = """
the printer on floor three prints blank pages again after restart toner tray cable network
customer called back asked for refund invoice order shipped delayed address changed please
check router password reset done waiting answer Straße café naïve résumé 東京 urgent
"""
WORDS: Final = VOCABULARY.split()


def mixed(number: int) -> int:
    """Map consecutive numbers to numbers spread over 62 bits, without collisions."""
    number = number * 0x9E3779B97F4A7C15 % 2**62
    return (number ^ number >> 31) * 0xBF58476D1CE4E5B9 % 2**62


def seeded_id(at: datetime, number: int) -> UUID:
    """Make a UUIDv7 of a time, the same for the same number."""
    return UUID(int=to_milliseconds(at) << 80 | 0x7 << 76 | 0b10 << 62 | mixed(number))


ACTORS: Final = [seeded_id(BEGIN, -number) for number in range(1, 21)]


def message_of(seed: int) -> str:
    size = 3 + seed % 12
    return " ".join(WORDS[(seed >> 3 * place) % len(WORDS)] for place in range(size))


def activity_of(ticket: Ticket, place: int, number: int) -> Activity:
    """Return the entry at a place of the timeline, as it was created. `number` is unique."""
    seed = mixed(number)
    at = ticket.created_at + place * STEP
    is_opening = place == 0
    kind = ActivityType.TICKET_CREATED if is_opening else TYPES[seed % len(TYPES)]
    is_upload = kind is ActivityType.DOCUMENT_UPLOAD
    actor_id = ACTORS[seed // 7 % len(ACTORS)]
    return Activity(
        ticket_id=ticket.id,
        id=uuid5(ticket.id, "ticket_created") if is_opening else seeded_id(at, number),
        activity_type=kind,
        is_private=not is_opening and seed // 11 % 20 == 0,
        created_at=at,
        actor_id=actor_id,
        message=None if kind is ActivityType.VIEW else message_of(seed),
        metadata={"channel": "mail", "number": place} if seed // 13 % 4 == 0 else {},
        document_id=seeded_id(at, -number - 1000) if is_upload else None,
        version=1,
        updated_at=at,
        updated_by_id=actor_id,
    )


def edited(activity: Activity) -> Activity:
    return activity._replace(
        message=f"{activity.message} (edited)",
        version=2,
        updated_at=activity.created_at + EDITED_AFTER * STEP,
    )


def is_edited(activity: Activity, place: int, size: int) -> bool:
    return (
        activity.activity_type is ActivityType.COMMENT
        and place % 5 == 0
        and place + EDITED_AFTER < size
    )


def timeline(ticket: Ticket, size: int, first_number: int) -> Iterator[Change]:
    """Yield the changes of a ticket in their order; the ticket of the last one is its state."""
    seq = 0
    waiting: dict[int, Activity] = {}
    for place in range(size):
        activity = activity_of(ticket, place, first_number + place)
        seq += 1
        yield Change(ChangeType.ADDED, ticket._replace(last_seq=seq), activity, None)
        if is_edited(activity, place, size):
            waiting[place + EDITED_AFTER] = activity
        if before := waiting.pop(place, None):
            seq += 1
            changed = ticket._replace(last_seq=seq)
            yield Change(ChangeType.UPDATED, changed, edited(before), before)


def opened_ticket(at: datetime, number: int) -> Ticket:
    return Ticket(seeded_id(at, number), at, last_seq=0, last_changed_at=at, merged_into_id=None)


def short_timelines(count: int, begin: datetime, first_number: int) -> Iterator[Change]:
    for place in range(count):
        number = first_number + place * (SHORT_TIMELINE + 1)
        ticket = opened_ticket(begin + place * STEP, number)
        yield from timeline(ticket, SHORT_TIMELINE, number + 1)


def final_activity_rows(changes: Iterable[Change], size: int, begin: datetime) -> list[Any]:
    """Build the rows of the entries that the changes create, as they are after all edits."""
    found = []
    for change in changes:
        activity = change.activity
        if change.change_type is ChangeType.ADDED:
            place = (activity.created_at - begin) // STEP
            is_changed = is_edited(activity, place, size)
            found.append(rows.activity_row(edited(activity) if is_changed else activity))
    return found


def store(session: Session, changes: list[Change], size: int, begin: datetime) -> None:
    entries = final_activity_rows(changes, size=size, begin=begin)
    nodes = [{"id": id_, "ticket_id": one.ticket.id} for one in changes for id_ in one.new_ids]
    session.exec(insert(rows.ACTIVITY), params=entries)
    session.exec(insert(rows.NODE), params=nodes)
    session.exec(insert(rows.CHANGE), params=[rows.change_row(one) for one in changes])


def chunks(changes: Iterator[Change]) -> Iterator[list[Change]]:
    while chunk := list(islice(changes, CHUNK_SIZE)):
        yield chunk


async def store_long_timeline(database: Database, size: int) -> None:
    ticket = opened_ticket(BEGIN, 1)

    def create(session: Session) -> None:
        session.exec(insert(rows.TICKET), params=[rows.ticket_row(ticket)])

    def extend(chunk: list[Change], session: Session) -> None:
        store(session, chunk, size, BEGIN)
        session.exec(
            update(rows.TICKET).where(rows.TICKET.c.id == ticket.id),
            params={"last_seq": chunk[-1].ticket.last_seq},
        )

    await database.write(create)
    for chunk in chunks(timeline(ticket, size, first_number=2)):
        await database.write(partial(extend, chunk))
        done = (chunk[-1].activity.updated_at - BEGIN) // STEP + 1
        show_progress(done, size, "activities")


async def store_short_timelines(database: Database, count: int, after: int) -> None:
    begin = BEGIN + after * STEP
    done = 0

    def add(chunk: list[Change], session: Session) -> None:
        tickets = {one.ticket.id: one.ticket for one in chunk}
        session.exec(insert(rows.TICKET), params=[rows.ticket_row(t) for t in tickets.values()])
        # None of them is long enough for an edit.
        store(session, chunk, size=0, begin=begin)

    for chunk in chunks(short_timelines(count, begin, first_number=after + 2)):
        await database.write(partial(add, chunk))
        done += len({one.ticket.id for one in chunk})
        show_progress(done, count, "tickets")


def show_progress(done: int, total: int, unit: str) -> None:
    bar = "#" * (done * 40 // total)
    end = "\n" if done == total else ""
    print(f"\r[{bar:<40}] {done:,} of {total:,} {unit}", end=end, file=sys.stderr, flush=True)


async def seed(file: Path, *, activities: int, tickets: int) -> None:
    database = open_database(f"sqlite+aiosqlite:///{file}")
    try:
        await migrate(database)
        await store_long_timeline(database, activities)
        await store_short_timelines(database, tickets, after=activities)
    finally:
        await database.close()


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/seed", description=__doc__)
    parser.add_argument("file", type=Path, help="a file that does not exist")
    parser.add_argument("--activities", type=positive, default=2_000_000, help="on one ticket")
    parser.add_argument("--tickets", type=positive, default=100_000, help="other tickets")
    arguments = parser.parse_args()
    file: Path = arguments.file
    if file.exists():
        sys.exit(f"scripts/seed: {file} exists; name a new file.")
    if not file.parent.is_dir():
        sys.exit(f"scripts/seed: there is no folder {file.parent}.")
    asyncio.run(seed(file, activities=arguments.activities, tickets=arguments.tickets))


if __name__ == "__main__":
    main()
