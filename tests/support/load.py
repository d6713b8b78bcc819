"""Clients that write and follow at random, and the search for what was lost of it.

They create, put, update and delete on a few hot tickets and some cold ones, and keep what they were
told. At the end every acknowledged write must be in the history and none twice, `seq` without gaps
and times in order on every ticket, entries as their last change left them, and each subscriber must
have been told every change once and in order, also if its stream was cut off and resumed.
"""

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import select
from sqlmodel import Session

from app.activity.cursors import FeedCursors
from app.activity.state import ChangeType
from app.store import rows
from app.store.database import open_database
from tests.support.live import FEED, FOLLOW
from tests.support.service import CREATE_ACTIVITY, CREATE_TICKET, UPDATE, activity_url

HOT: Final = 3
HOT_SHARE: Final = 0.7
EXPECTED: Final = {"VERSION_CONFLICT", "NOT_FOUND"}
DISTURBED: Final = {"BUSY", "RECONNECT", "WRITE_IN_DOUBT", "COMMITTED_UNREAD", "DEADLINE_EXCEEDED"}
"""What a client may be answered while something is killed."""

DELETE: Final = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
CATCH_UP_SECONDS: Final = 30
SERVED_SECONDS: Final = 60


@dataclass(slots=True, eq=False)
class Load:
    """What the clients know and have been told.

    With `is_disturbed` a client may lose its connection, and be answered what `allowed` names.
    """

    origins: list[str]
    token: str
    is_disturbed: bool = False
    is_over: bool = False
    allowed: set[str] = field(default_factory=lambda: set(DISTURBED))
    tickets: list[str] = field(default_factory=list)
    entries: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    followers: list["Follower"] = field(default_factory=list)
    writers: list["asyncio.Task[None]"] = field(default_factory=list)

    def client(self, number: int) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        origin = self.origins[number % len(self.origins)]
        # `verify` would load certificates for each client.
        return httpx2.AsyncClient(base_url=origin, headers=headers, timeout=60, verify=False)

    def note(self, code: str) -> None:
        """Count an outcome; one that the moment does not explain is an error."""
        self.outcomes[code] += 1
        is_explained = code in EXPECTED or (self.is_disturbed and code in self.allowed)
        if code != "ok" and not is_explained:
            self.unexpected.append(code)

    @property
    def told(self) -> int:
        """How many changes the subscribers were told."""
        return sum(len(follower.changes) for follower in self.followers)

    @property
    def resumed(self) -> int:
        return sum(follower.resumed for follower in self.followers)

    async def finish(self, url: str) -> list[str]:
        """Let the clients end, and return what is wrong in the database and in what was told."""
        self.is_over = True
        await asyncio.gather(*self.writers)
        stored = await stored_in(url)
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await _caught_up(stored, self.followers)
        except TimeoutError:
            self.unexpected.append(f"a subscriber waits since {CATCH_UP_SECONDS} s")
        wrong = _wrong_in_database(self, stored)
        for follower in self.followers:
            wrong += _wrong_in_stream(stored, follower, await replay(self, follower.ticket_id))
        return wrong + self.unexpected


@asynccontextmanager
async def under_load(
    origins: Sequence[str], token: str, clients: int, *, cold: int = 10, is_disturbed: bool = False
) -> AsyncIterator[Load]:
    """Make tickets and yield clients that write to them, and that follow the hot ones."""
    load = Load(list(origins), token, is_disturbed)
    async with load.client(0) as http:
        for _ in range(HOT + cold):
            _, payload = await graphql(http, CREATE_TICKET, input={})
            load.tickets.append(payload["ticket"]["id"])
            load.entries[load.tickets[-1]] = []
    for ticket_id in load.tickets[:HOT]:
        start = (await replay(load, ticket_id))[-1][0]
        load.followers += [Follower(load, ticket_id, n, start) for n in range(len(origins))]
    following = [asyncio.create_task(follower.follow()) for follower in load.followers]
    load.writers = [asyncio.create_task(write(load, number)) for number in range(clients)]
    try:
        yield load
    finally:
        tasks = [*following, *load.writers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def graphql(http: httpx2.AsyncClient, query: str, **variables: Any) -> tuple[str, Any]:
    """Return a code and the payload of a mutation or query of one field."""
    response = await http.post("/graphql", json={"query": query, "variables": variables})
    document = response.json()
    if document.get("errors"):
        return str(document["errors"][0]["extensions"]["code"]), None
    [payload] = document["data"].values()
    errors = payload.get("userErrors") if isinstance(payload, dict) else None
    return (str(errors[0]["code"]) if errors else "ok"), payload


async def write(load: Load, number: int) -> None:
    """Write until the load is over, as one client of one process."""
    chance = random.Random(number)
    async with load.client(number) as http:
        while not load.is_over:
            try:
                load.note(await write_once(load, http, chance))
            except (httpx2.TransportError, json.JSONDecodeError) as error:
                load.outcomes[type(error).__name__] += 1
                if not load.is_disturbed:
                    load.unexpected.append(repr(error))
                await asyncio.sleep(0.05)


async def write_once(load: Load, http: httpx2.AsyncClient, chance: random.Random) -> str:
    is_hot = chance.random() < HOT_SHARE
    ticket_id = chance.choice(load.tickets[:HOT] if is_hot else load.tickets[HOT:])
    entries, kind = load.entries[ticket_id], chance.random()
    message = str(uuid4())
    if kind < 0.25 or not entries:
        return await create(load, http, ticket_id, message)
    entry_id = chance.choice(entries)
    if kind < 0.3:
        return await delete(load, http, ticket_id, entry_id)
    if kind < 0.65:
        return await put(load, http, ticket_id, entry_id, message)
    return await update(load, http, ticket_id, entry_id, message)


async def create(load: Load, http: httpx2.AsyncClient, ticket_id: str, message: str) -> str:
    input_ = {"ticketId": ticket_id, "activityType": "COMMENT", "message": message}
    code, payload = await graphql(http, CREATE_ACTIVITY, input=input_)
    if code == "ok":
        id_ = payload["ticketActivity"]["id"]
        load.entries[ticket_id].append(id_)
        load.acknowledged.append((id_, 1, message))
    return code


async def delete(load: Load, http: httpx2.AsyncClient, ticket_id: str, entry_id: str) -> str:
    input_ = {"ticketId": ticket_id, "activityId": entry_id}
    code, _ = await graphql(http, DELETE, input=input_)
    if code == "ok":
        load.deleted.add(entry_id)
        if entry_id in load.entries[ticket_id]:
            load.entries[ticket_id].remove(entry_id)
    return code


async def put(
    load: Load, http: httpx2.AsyncClient, ticket_id: str, entry_id: str, message: str
) -> str:
    response = await http.put(activity_url(ticket_id, entry_id), json={"message": message})
    if response.status_code != httpx2.codes.OK:
        return str(response.json()["code"])
    load.acknowledged.append((entry_id, int(response.headers["ETag"].strip('"')), message))
    return "ok"


async def update(
    load: Load, http: httpx2.AsyncClient, ticket_id: str, entry_id: str, message: str
) -> str:
    """Read an entry and update it from the version that was read."""
    response = await http.get(activity_url(ticket_id, entry_id))
    if response.status_code != httpx2.codes.OK:
        return str(response.json()["code"])
    version = int(response.headers["ETag"].strip('"'))
    input_ = {
        "ticketId": ticket_id,
        "activityId": entry_id,
        "message": message,
        "expectedVersion": version,
    }
    code, _ = await graphql(http, UPDATE, input=input_)
    if code == "ok":
        load.acknowledged.append((entry_id, version + 1, message))
    return code


@dataclass(slots=True, eq=False)
class Follower:
    """A subscriber of one ticket, that resumes on the next process after its last cursor."""

    load: Load
    ticket_id: str
    number: int
    after: str
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    resumed: int = -1

    async def follow(self) -> None:
        while True:
            self.number += 1
            try:
                async with self.load.client(self.number) as http:
                    await self._read(http)
            except (httpx2.TransportError, json.JSONDecodeError):
                await asyncio.sleep(0.05)

    async def _read(self, http: httpx2.AsyncClient) -> None:
        variables = {"ticketId": self.ticket_id, "after": self.after}
        body = {"query": FOLLOW, "variables": variables}
        accept = {"Accept": "text/event-stream"}
        async with http.stream("POST", "/graphql", json=body, headers=accept) as response:
            if response.status_code != httpx2.codes.OK:
                await asyncio.sleep(0.1)
                return
            self.resumed += 1
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, result: Any) -> None:
        event = (result.get("data") or {}).get("ticketActivityChanges")
        if event and event["change"]:
            change = event["change"]
            self.changes.append((event["cursor"], change["changeType"], change["activityId"]))
        self.after = event["cursor"] if event else self.after


async def replay(load: Load, ticket_id: str) -> list[tuple[str, str, str]]:
    """Return the changes of a ticket as one who begins now reads them."""
    changes: list[tuple[str, str, str]] = []
    after = None
    async with load.client(0) as http:
        while True:
            _, page = await graphql(http, FEED, ticketId=ticket_id, after=after, first=100)
            changes += [(n["cursor"], n["changeType"], n["activityId"]) for n in page["nodes"]]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return changes


async def wait_until_served(load: Load) -> float:
    """Return how long it takes until every process accepts a write; raise if it does not."""
    began = time.monotonic()
    for number in range(len(load.origins)):
        async with load.client(number) as http, asyncio.timeout(SERVED_SECONDS):
            while True:
                try:
                    code, _ = await graphql(http, CREATE_TICKET, input={})
                except (httpx2.TransportError, json.JSONDecodeError):
                    code = "LOST"
                if code == "ok":
                    break
                await asyncio.sleep(0.05)
    return time.monotonic() - began


# What is in the database


class Changed(NamedTuple):
    """A row of the history."""

    ticket_id: UUID
    seq: int
    activity_id: UUID
    version: int
    change_type: ChangeType
    message: str | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database holds. Entries are by id: version, message, when they were changed last, and
    when they were deleted.
    """

    cursors: FeedCursors
    changes: list[Changed]
    last_seqs: dict[UUID, int]
    entries: dict[UUID, tuple[int, str | None, datetime, datetime | None]]


async def stored_in(url: str) -> Stored:
    database = open_database(url)
    try:
        return await database.read(_load_stored)
    finally:
        await database.close()


def _load_stored(session: Session) -> Stored:
    connection = session.connection()
    change, entry, ticket = rows.CHANGE.c, rows.ACTIVITY.c, rows.TICKET.c
    changed = select(*(change[name] for name in Changed._fields))
    entries = select(entry.id, entry.version, entry.message, entry.updated_at, entry.deleted_at)
    return Stored(
        FeedCursors(connection.execute(select(rows.CURSOR_KEY.c.key)).scalar_one()),
        [
            Changed(*row)
            for row in connection.execute(changed.order_by(change.ticket_id, change.seq))
        ],
        dict(row._tuple() for row in connection.execute(select(ticket.id, ticket.last_seq))),
        {id_: (*held,) for id_, *held in connection.execute(entries)},
    )


async def _caught_up(stored: Stored, followers: Sequence[Follower]) -> None:
    """Wait until subscribers have been told the last change, which a deletion is too."""
    for follower in followers:
        id_ = UUID(follower.ticket_id)
        while stored.cursors.open(id_, follower.after).seq < stored.last_seqs[id_]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _wrong_in_database(load: Load, stored: Stored) -> list[str]:
    seqs: dict[UUID, list[int]] = {}
    times: dict[UUID, list[datetime]] = {}
    history: dict[tuple[str, int], str | None] = {}
    state: dict[UUID, tuple[int, str | None, datetime, datetime | None]] = {}
    written: Counter[str | None] = Counter()
    for row in stored.changes:
        seqs.setdefault(row.ticket_id, []).append(row.seq)
        times.setdefault(row.ticket_id, []).append(row.changed_at)
        history[str(row.activity_id), row.version] = row.message
        is_removal = row.change_type is ChangeType.REMOVED
        deleted_at = row.changed_at if is_removal else None
        state[row.activity_id] = row.version, row.message, row.changed_at, deleted_at
        written[row.message] += not is_removal
    last = stored.last_seqs
    wrong = [f"seq of {id_}" for id_, found in seqs.items() if found != [*range(1, last[id_] + 1)]]
    wrong += [
        f"times of {id_} go back"
        for id_ in load.tickets
        if times[UUID(id_)] != sorted(times[UUID(id_)])
    ]
    wrong += [
        f"entry {id_}"
        for id_ in stored.entries.keys() | state.keys()
        if stored.entries.get(id_) != state.get(id_)
    ]
    wrong += [
        f"written {count} times: {text}" for text, count in written.items() if count > 1 and text
    ]
    wrong += [
        f"acknowledged {id_} at {version}"
        for id_, version, message in load.acknowledged
        if history.get((id_, version)) != message
    ]
    wrong += [
        f"acknowledged deletion of {id_}"
        for id_ in load.deleted
        if (entry := stored.entries.get(UUID(id_))) is None or entry[-1] is None
    ]
    return wrong


def _wrong_in_stream(
    stored: Stored, follower: Follower, replayed: Sequence[tuple[str, str, str]]
) -> list[str]:
    ticket_id = UUID(follower.ticket_id)
    entry_of = {row.seq: row.activity_id for row in stored.changes if row.ticket_id == ticket_id}
    told = [stored.cursors.open(ticket_id, cursor).seq for cursor, *_ in follower.changes]
    begin = told[0] if told else 0
    wrong = [f"told again or late: {told}"] if told != sorted(set(told)) else []
    # The past of what has been deleted since is left out for whoever reads it later.
    wrong += [
        f"not told of {seq}"
        for seq in {*range(begin, stored.last_seqs[ticket_id] + 1)}.difference(told)
        if stored.entries[entry_of[seq]][-1] is None
    ]
    live = {(seq, *change[1:]) for seq, change in zip(told, follower.changes, strict=True)}
    wrong += [
        f"replayed {change}"
        for cursor, *change in replayed
        if (seq := stored.cursors.open(ticket_id, cursor).seq) >= begin
        and (seq, *change) not in live
    ]
    return wrong


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
