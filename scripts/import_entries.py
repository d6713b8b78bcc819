"""Imports entries with true times and actors through the bulk mutation, and looks them up.

The service runs in this process and is called without a socket, so that what is measured is the
mutation: parsing, deciding, and storing on a disk that is synchronised at each COMMIT.
"""

import argparse
import asyncio
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2

from app.activity.values import format_datetime, utc_now
from app.auth import Scope
from app.main import create_app
from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import migrate
from app.store.tokens import create_token

IMPORTER: Final = UUID(int=1)
BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
STEP: Final = timedelta(seconds=60)
ENTRIES_OF_A_TICKET: Final = 1000
CALLERS: Final = 4

CREATE_TICKET: Final = """
mutation Create($input: CreateTicketInput!) {
  createTicket(input: $input) { ticket { id } userErrors { message } }
}
"""
CREATE_ALL: Final = """
mutation CreateAll($input: CreateTicketActivitiesInput!) {
  createTicketActivities(input: $input) {
    results { userErrors { message } } userErrors { message }
  }
}
"""
COUNT: Final = """
query Count($id: ID!) {
  ticket(id: $id) {
    activities(last: 1) {
      totalCount
      nodes { createdAt actorId revisions(first: 2) { nodes { recordedAt recordedBy { id } } } }
    }
  }
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a file that does not exist yet")
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.file.exists():
        parser.error(f"{options.file} is there already")
    return asyncio.run(import_entries(options.file, options.entries))


async def import_entries(file: Path, count: int) -> int:
    """Import that many entries; return 1 if one is missing or has another time."""
    settings = Settings(database_url=f"sqlite+aiosqlite:///{file}")
    token = await _prepare(settings)
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url="http://service.test",
            headers={"Authorization": f"Bearer {token}"},
        ) as http,
    ):
        begun, begun_at = time.perf_counter(), format_datetime(utc_now())
        tickets = _tickets(count)
        await _import_all(http, tickets[: len(tickets) // 10])
        early = _peak_mebibytes()
        await _import_all(http, tickets[len(tickets) // 10 :])
        seconds, late = time.perf_counter() - begun, _peak_mebibytes()
        wrong = [numbers for numbers in tickets if not await _is_right(http, numbers, begun_at)]
    print(f"{count:,} entries in {seconds:.1f} s: {count / seconds:,.0f} a second")
    print(f"{early:.1f} MiB of memory at most after a tenth of them, {late:.1f} MiB after all")
    print(f"{len(wrong)} of {len(tickets)} tickets are not as they were imported")
    return 1 if wrong else 0


async def _import_all(http: httpx2.AsyncClient, tickets: list[range]) -> None:
    left = iter(tickets)
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(_import(http, left))


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _prepare(settings: Settings) -> str:
    """Make the database. Return a token that may import."""
    database = open_database(settings.database_url)
    await migrate(database)
    issue = partial(
        create_token,
        name="import",
        actor_id=IMPORTER,
        scopes=set(Scope),
        created_at=utc_now(),
        expires_at=None,
    )
    token = await database.write(issue)
    await database.close()
    return token.text


def _tickets(count: int) -> list[range]:
    """Return the numbers of the entries of each ticket."""
    starts = range(0, count, ENTRIES_OF_A_TICKET)
    return [range(start, min(start + ENTRIES_OF_A_TICKET, count)) for start in starts]


def _hundreds(numbers: range) -> list[range]:
    return [numbers[begin : begin + 100] for begin in range(0, len(numbers), 100)]


def _id(kind: int, number: int) -> str:
    return str(UUID(int=kind << 112 | 0x7 << 76 | 0b10 << 62 | number))


def _time(number: int) -> str:
    return format_datetime(BEGIN + number * STEP)


async def _import(http: httpx2.AsyncClient, tickets: Any) -> None:
    for numbers in tickets:
        ticket_id, past = _id(1, numbers.start), {"createdAt": _time(numbers.start)}
        await _send(http, CREATE_TICKET, input={"id": ticket_id, **past})
        for some in _hundreds(numbers):
            items = [
                {
                    "ticketId": ticket_id,
                    "id": _id(2, number),
                    "activityType": "COMMENT",
                    "message": f"Imported as number {number}, as it was said at that time.",
                    "metadata": {"number": number},
                    "createdAt": _time(number),
                    "actorId": _id(3, number % 50),
                }
                for number in some
            ]
            await _send(http, CREATE_ALL, input={"items": items})


async def _send(http: httpx2.AsyncClient, query: str, **variables: Any) -> Any:
    response = await http.post("/graphql", json={"query": query, "variables": variables})
    document = response.json()
    if "errors" in document or '"message"' in response.text:
        sys.exit(f"refused: {response.text[:500]}")
    return document["data"]


async def _is_right(http: httpx2.AsyncClient, numbers: range, begun_at: str) -> bool:
    """Return whether all are there, and the last one has its own time and when it was imported."""
    data = await _send(http, COUNT, id=_id(1, numbers.start))
    found = data["ticket"]["activities"]
    [revision] = found["nodes"][0].pop("revisions")["nodes"]
    last = {"createdAt": _time(numbers[-1]), "actorId": _id(3, numbers[-1] % 50)}
    is_right: bool = (
        found == {"totalCount": len(numbers) + 1, "nodes": [last]}
        and begun_at <= revision["recordedAt"] <= format_datetime(utc_now())
        and revision["recordedBy"]["id"] == str(IMPORTER)
    )
    return is_right


if __name__ == "__main__":
    sys.exit(main())
