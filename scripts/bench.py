"""Measures ratios within one run, through the service's doors but without a socket.

Absolute times are those of the machine; only what stands in one table can be compared.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

from bench_feed import bench_feed
from sqlalchemy import func
from sqlmodel import Session, select

from app.activity.cursors import make_cursor
from app.activity.listing import Direction, Order, OrderField
from app.activity.state import Activity
from app.auth import Scope
from app.settings import Settings
from app.store import rows
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests.support.service import JSON, UPDATE, Client, Clock, Service, start

PAGE: Final = """
query Page(
  $id: ID!, $first: Int, $after: String, $last: Int,
  $filter: TicketActivityFilter, $orderBy: TicketActivityOrder
) {
  ticket(id: $id) {
    activities(first: $first, after: $after, last: $last, filter: $filter, orderBy: $orderBy) {
      nodes { id activityType createdAt actorId message metadata version updatedAt }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
    }
  }
}
"""
COUNT: Final = "query Count($id: ID!) { ticket(id: $id) { activities { totalCount } } }"

PAGE_SIZE: Final = 20
SLOW_ROUNDS: Final = 3
WRITERS: Final = (1, 8, 64)
DEADLINE_SECONDS: Final = 600
"""Nothing here is to be cut off."""

Measure = Callable[[], Awaitable[object]]


def settings_of(file: Path) -> Settings:
    return Settings(
        database_url=f"sqlite+aiosqlite:///{file}", query_deadline_seconds=DEADLINE_SECONDS
    )


def query(client: Client, text: str, **variables: Any) -> Measure:
    async def run() -> JSON:
        document = await client.graphql(text, **variables)
        if "errors" in document:
            raise RuntimeError(document["errors"])
        return document

    return run


async def longest_timeline(database: Database) -> UUID:
    columns = rows.TICKET.c
    statement = select(columns.id).order_by(columns.last_seq.desc()).limit(1)
    ticket_id: UUID = await database.read(lambda session: session.exec(statement).one())
    return ticket_id


async def middle_of(database: Database, ticket_id: UUID, field: OrderField) -> Activity:
    """Return the entry in the middle of a timeline in an order."""
    columns = rows.ACTIVITY.c
    listed = (columns.ticket_id == ticket_id, columns.deleted_at.is_(None))

    def find(session: Session) -> Activity:
        size = session.exec(select(func.count()).where(*listed)).one()
        found = session.exec(
            select(*rows.ACTIVITY_COLUMNS)
            .where(*listed)
            .order_by(columns[field.value], columns.id)
            .offset(size // 2)
            .limit(1)
        )
        return Activity(*found.one())

    return await database.read(find)


async def page_measures(service: Service, client: Client, ticket_id: UUID) -> dict[str, Measure]:
    """First, middle and last page, in every order."""
    measures = {}
    for field in OrderField:
        middle = await middle_of(service.database, ticket_id, field)
        for direction in Direction:
            places: dict[str, JSON] = {
                "first page": {"first": PAGE_SIZE},
                "middle page": {
                    "first": PAGE_SIZE,
                    "after": make_cursor(Order(field, direction), middle),
                },
                "last page": {"last": PAGE_SIZE},
            }
            order = {"field": field.name, "direction": direction.name}
            for place, window in places.items():
                measures[f"{place}, {field.name} {direction.name}"] = query(
                    client, PAGE, id=str(ticket_id), orderBy=order, **window
                )
    return measures


def slow_measures(client: Client, ticket_id: UUID) -> dict[str, Measure]:
    """What grows with the timeline."""

    def search(text: str) -> Measure:
        return query(client, PAGE, id=str(ticket_id), first=PAGE_SIZE, filter={"text": text})

    return {
        "totalCount": query(client, COUNT, id=str(ticket_id)),
        "text: two words many entries have": search("printer urgent"),
        "text: a word no entry has": search("zeppelin"),
    }


async def medians(measures: dict[str, Measure], rounds: int) -> dict[str, float]:
    """Run all of them in turn, so that what disturbs one disturbs all; milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():
        await measure()
    for _ in range(rounds):
        for name, measure in measures.items():
            started = time.perf_counter()
            await measure()
            taken[name].append((time.perf_counter() - started) * 1000)
    return {name: median(times) for name, times in taken.items()}


async def bench_pages(file: Path, rounds: int) -> None:
    async with start(settings_of(file)) as service:
        ticket_id = await longest_timeline(service.database)
        # Reading without `activity:private` is the harder case: it filters.
        client = await service.client(Scope.READ)
        found = await medians(await page_measures(service, client, ticket_id), rounds)
        found |= await medians(slow_measures(client, ticket_id), SLOW_ROUNDS)
    print_table(("read", "ms", "ratio"), found, ".2f")


async def create_database(file: Path) -> None:
    database = open_database(f"sqlite+aiosqlite:///{file}")
    await migrate(database)
    await database.close()


async def updates_a_second(client: Client, entries: list[JSON], seconds: float) -> float:
    """Let every entry be updated by a writer of its own, one update after the other."""
    numbers = count()
    done = 0
    started = time.perf_counter()

    async def update(entry: JSON) -> None:
        nonlocal done
        while time.perf_counter() < started + seconds:
            message = f"{started} {next(numbers)}"
            payload = await client.mutate(
                UPDATE, ticketId=entry["ticketId"], activityId=entry["id"], message=message
            )
            if payload["userErrors"]:
                raise RuntimeError(payload["userErrors"])
            done += 1

    await asyncio.gather(*(update(entry) for entry in entries))
    return done / (time.perf_counter() - started)


async def bench_writes(rounds: int, seconds: float) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bench.db"
        await create_database(file)
        async with start(settings_of(file), Clock()) as service:
            client = await service.client()
            # A ticket each: writers of different timelines share commits too.
            entries = [
                await client.create_activity(await client.create_ticket())
                for _ in range(max(WRITERS))
            ]
            await updates_a_second(client, entries, seconds / 4)
            rates: dict[str, list[float]] = {f"{size} writers": [] for size in WRITERS}
            for _ in range(rounds):
                for size, taken in zip(WRITERS, rates.values(), strict=True):
                    taken.append(await updates_a_second(client, entries[:size], seconds))
    found = {name: median(taken) for name, taken in rates.items()}
    print_table(("updates by", "a second", "ratio"), found, ".0f")


def print_table(titles: tuple[str, str, str], found: dict[str, float], form: str) -> None:
    """Print values with their ratio to the first one, as Markdown."""
    unit = next(iter(found.values()))
    print(f"| {titles[0]} | {titles[1]} | {titles[2]} |\n|---|--:|--:|")
    for name, value in found.items():
        print(f"| {name} | {value:{form}} | {value / unit:.2f} |")


def main() -> None:
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pages = commands.add_parser("pages", help="pages, counts and text search of a seeded file")
    pages.add_argument("file", type=Path, help="a file that scripts/seed has made")
    pages.add_argument("--rounds", type=int, default=30)
    writes = commands.add_parser("writes", help="concurrent updates of a new file")
    writes.add_argument("--rounds", type=int, default=5)
    writes.add_argument("--seconds", type=float, default=2, help="of each measurement")
    feed = commands.add_parser("feed", help="subscribers of one ticket, and of as many tickets")
    feed.add_argument("--subscribers", type=int, default=2000)
    feed.add_argument("--seconds", type=float, default=6, help="of each measurement")
    arguments = parser.parse_args()
    if arguments.command == "feed":
        asyncio.run(bench_feed(arguments.subscribers, arguments.seconds))
    elif arguments.command == "writes":
        asyncio.run(bench_writes(arguments.rounds, arguments.seconds))
    elif arguments.file.is_file():
        asyncio.run(bench_pages(arguments.file, arguments.rounds))
    else:
        sys.exit(f"scripts/bench: there is no file {arguments.file}.")


if __name__ == "__main__":
    main()
