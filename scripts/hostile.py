"""Shows how much the overload that one token causes slows down another token.

Starts a service of one process on a database of its own. A second token puts, updates, reads by id
and follows a ticket, first alone, then while attackers of one token that may read and write send
slow text searches, long counts, huge answers, resumes of streams and creations whose payloads read
much; then while six clients read pages against eight writers; and last beside each crowd of
`hostile_connections`. Everything is bounded and on loopback.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import httpx2
from hostile_connections import CROWDS, Crowd
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from app.activity.listing import MAX_TEXT_WORDS
from tests.support.process import serve, token
from tests.support.service import ACTIVITY, UPDATE, Client

FOLLOW: Final = """
subscription Follow($ticketId: ID!, $after: String) {
  ticketActivityChanges(ticketId: $ticketId, after: $after) {
    cursor change { changeType activityId ticketActivity { id message version } } } }
"""
CREATE_AND_READ: Final = """
mutation Create($input: CreateTicketActivityInput!) { createTicketActivity(input: $input) {
  ticketActivity { id ticket { activities(filter: {text: "zeppelin"}) { nodes { id } } } } } }
"""
PAGE: Final = """
query Page($id: ID!) { ticket(id: $id) { activities(first: 50) {
  totalCount nodes { id message metadata createdAt actorId version } } } }
"""
WORDS: Final = " ".join("é" * length for length in range(1, MAX_TEXT_WORDS + 1))
LARGE_ENTRIES: Final = 400
SMALL_ENTRIES: Final = 100_000
USUAL_ENTRIES: Final = 5_000
OK: Final = 200
HISTORY: Final = 300
CLIENTS_OF_A_KIND: Final = 2
ATTACKS: Final = ("search", "count", "huge", "resume", "create")
ALL: Final = ATTACKS + CROWDS
PORTION: Final = 0.5
"""The share of the throughput of each kind that must remain."""


@dataclass
class Measured:
    """Times of requests by kind, in milliseconds, and wrong responses."""

    taken: dict[str, list[float]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, began: float) -> None:
        self.taken.setdefault(kind, []).append((time.monotonic() - began) * 1000)

    def rate(self, kind: str, seconds: float) -> float:
        return len(self.taken.get(kind, ())) / seconds

    def p99(self, kind: str) -> float:
        taken = self.taken.get(kind, [])
        return quantiles(taken, n=100)[-1] if len(taken) > 1 else float("nan")


def client(origin: str, access: str) -> Client:
    http = httpx2.AsyncClient(base_url=origin, timeout=60)
    return Client(http, uuid4(), access)


async def until(end: float, act: Callable[[int], Awaitable[None]]) -> None:
    """Repeat an act until a time of the monotonic clock."""
    number = 0
    while time.monotonic() < end:
        await act(number)
        number += 1


# The second token


@dataclass
class Victim:
    """Puts, updates and reads entries of its own, and follows their ticket."""

    client: Client
    ticket_id: str
    entries: list[str]
    acknowledged: dict[str, int] = field(default_factory=dict)
    counter: int = 0

    async def measure(self, seconds: float, writers: int = CLIENTS_OF_A_KIND) -> Measured:
        measured = Measured()
        end = time.monotonic() + seconds
        entries = iter(self.entries)
        begun = asyncio.Event()
        following = asyncio.create_task(self._follow(measured, begun))
        await begun.wait()
        works: list[Coroutine[Any, Any, None]] = []
        for _ in range(writers):
            works.append(until(end, partial(self._put, measured, next(entries))))
            works.append(until(end, partial(self._update, measured, next(entries))))
        readers = [next(entries) for _ in range(CLIENTS_OF_A_KIND)]
        works += [until(end, partial(self._read, measured, entry)) for entry in readers]
        await asyncio.gather(*works)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        return measured

    def _message(self) -> tuple[int, str]:
        self.counter += 1
        return self.counter, f"{self.counter} {time.monotonic()}"

    async def _put(self, measured: Measured, entry: str, _number: int) -> None:
        number, message = self._message()
        began = time.monotonic()
        response = await self.client.put(self.ticket_id, entry, {"message": message})
        if response.status_code == OK:
            self.acknowledged[entry] = number
            measured.add("PUT", began)
        else:
            measured.wrong[f"PUT answered {response.json()['code']}"] += 1

    async def _update(self, measured: Measured, entry: str, _number: int) -> None:
        number, message = self._message()
        input_ = {"ticketId": self.ticket_id, "activityId": entry, "message": message}
        began = time.monotonic()
        document = await self.client.graphql(UPDATE, input=input_)
        if "errors" in document:
            measured.wrong[f"update answered {codes(document)}"] += 1
        else:
            self.acknowledged[entry] = number
            measured.add("update", began)

    async def _read(self, measured: Measured, entry: str, _number: int) -> None:
        began = time.monotonic()
        document = await self.client.graphql(ACTIVITY, ticketId=self.ticket_id, activityId=entry)
        if "errors" in document:
            measured.wrong[f"read answered {codes(document)}"] += 1
        else:
            measured.add("read by id", began)

    async def _follow(self, measured: Measured, begun: asyncio.Event) -> None:
        url = str(self.client.http.base_url).replace("http", "ws", 1).rstrip("/") + "/graphql"
        protocol = Subprotocol("graphql-transport-ws")
        async with connect(url, subprotocols=[protocol], max_size=None) as socket:
            payload: dict[str, Any] = {"Authorization": f"Bearer {self.client.token}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            payload = {"query": FOLLOW, "variables": {"ticketId": self.ticket_id}}
            await socket.recv()
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            async for text in socket:
                self._receive(measured, json.loads(text), begun)
        measured.wrong["the subscription was ended"] += 1

    def _receive(self, measured: Measured, message: Any, begun: asyncio.Event) -> None:
        if message["type"] in ("error", "complete"):
            measured.wrong[f"the subscription got {message['type']}"] += 1
        elif message["type"] == "next":
            begun.set()
            change = message["payload"]["data"]["ticketActivityChanges"]["change"]
            if change:
                measured.add("delivery", float(change["ticketActivity"]["message"].split()[1]))

    def lost(self, file: Path) -> list[str]:
        """Return the entries whose row is older than what was acknowledged last."""
        with closing(sqlite3.connect(file)) as connection:
            found = dict(
                connection.execute(
                    "SELECT id, message FROM ticket_activity WHERE ticket_id = ?",
                    (self.ticket_id.replace("-", ""),),
                )
            )
        return [
            entry
            for entry, number in self.acknowledged.items()
            if int(found[entry.replace("-", "")].split()[0]) < number
        ]


def codes(document: Any) -> str:
    return ", ".join({error["extensions"]["code"] for error in document["errors"]})


# The attackers, in a process of their own


@dataclass
class Attack:
    """What one token sends; `answers` counts the codes of what it got."""

    client: Client
    large: str
    small: str
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def run(self, seconds: float, size: int, names: Sequence[str]) -> None:
        end = time.monotonic() + seconds
        kinds = [getattr(self, f"_{name}") for name in names]
        await asyncio.gather(*(until(end, kind) for kind in kinds for _ in range(size)))

    async def _query(self, name: str, query: str, **variables: Any) -> Any:
        document = await self.client.graphql(query, **variables)
        self.answers[f"{name}: {codes(document) if 'errors' in document else 'answered'}"] += 1
        return document

    async def _search(self, _number: int) -> None:
        query = """query Q($id: ID!, $text: String!) { ticket(id: $id) {
          activities(filter: {text: $text}) { filteredCount } } }"""
        await self._query("search", query, id=self.large, text=WORDS)

    async def _count(self, _number: int) -> None:
        query = """query Q($id: ID!) { ticket(id: $id) {
          activities(filter: {types: [COMMENT]}) { filteredCount } } }"""
        await self._query("count", query, id=self.small)

    async def _huge(self, _number: int) -> None:
        query = """query Q($id: ID!) { ticket(id: $id) {
          activities(first: 100) { nodes { message } } } }"""
        body = {"query": query, "variables": {"id": self.large}}
        response = await self.client.request("POST", "/graphql", json=body)
        # Not parsed: the processor is the service's, as far as it goes.
        is_refused = response.content.startswith(b'{"errors"')
        self.answers["huge: refused" if is_refused else "huge: answered"] += 1

    async def _create(self, _number: int) -> None:
        id_ = str(uuid4())
        input_ = {"id": id_, "ticketId": self.small, "activityType": "COMMENT", "message": "x"}
        document = await self._query("create", CREATE_AND_READ, input=input_)
        is_told = "errors" not in document or codes(document) == "COMMITTED_UNREAD"
        (self.acknowledged if is_told else self.refused).append(id_)

    async def _resume(self, _number: int) -> None:
        """Follow from the start until the history has come."""
        query = """query Q($id: ID!) { ticketActivityChanges(ticketId: $id, first: 1) {
          pageInfo { endCursor } } }"""
        document = await self.client.graphql(query, id=self.large)
        if "errors" in document:
            self.answers[f"resume: {codes(document)}"] += 1
            return
        after = document["data"]["ticketActivityChanges"]["pageInfo"]["endCursor"]
        body = {"query": FOLLOW, "variables": {"ticketId": self.large, "after": after}}
        headers = {"Authorization": f"Bearer {self.client.token}", "Accept": "text/event-stream"}
        count = 0
        async with self.client.http.stream("POST", "/graphql", json=body, headers=headers) as got:
            async for line in got.aiter_lines():
                count += line == "event: next"
                if line == "event: complete":
                    self.answers["resume: ended by complete"] += 1
                if count > HISTORY:
                    break
        self.answers["resume: answered" if count > HISTORY else "resume: cut"] += 1


async def read_pages(origin: str, access: str, ticket_id: str, seconds: float) -> None:
    reader = client(origin, access)

    async def read(_number: int) -> None:
        await reader.graphql(PAGE, id=ticket_id)

    await asyncio.gather(*(until(time.monotonic() + seconds, read) for _ in range(6)))


def attack(pipe: Connection, origin: str, access: str, tickets: tuple[str, str, str, str]) -> None:
    """Run in a process of its own: for each (kinds, seconds, size) that comes, attack and tell."""
    # Attackers have machines of their own. Here they take the processor that the others leave.
    os.nice(10)
    large, small, usual, entry = tickets
    while order := pipe.recv():
        kinds, seconds, size = order
        if kinds[0] in CROWDS:
            crowd = Crowd(origin, access, large, entry)
            asyncio.run(crowd.run(kinds[0], seconds, size))
            pipe.send(crowd.answers)
            continue
        if kinds == ["pages"]:
            asyncio.run(read_pages(origin, access, usual, seconds))
            pipe.send(None)
            continue
        attacking = Attack(client(origin, access), large, small)
        asyncio.run(attacking.run(seconds, size, kinds))
        pipe.send((attacking.answers, attacking.acknowledged, attacking.refused))


# The course of it


async def prepare(origin: str, access: str, count: int) -> Victim:
    victim = client(origin, access)
    ticket_id = await victim.create_ticket(message="0 0")
    entries = [
        (await victim.create_activity(ticket_id, message=f"0 {time.monotonic()}"))["id"]
        for _ in range(count)
    ]
    return Victim(victim, ticket_id, entries)


async def fill(file: Path, attacker: Client) -> tuple[str, str, str, str]:
    """Create a ticket with large, edited entries, one with very many entries, and a usual one.

    Return their ids, and that of an entry of the first.
    """
    large = await attacker.create_ticket(message="É" * 65_000)
    small, usual = [await attacker.create_ticket() for _ in range(2)]
    for ticket_id in (small, usual):
        await attacker.create_activity(ticket_id, message="The printer on floor 3 is broken")
    entry = (await attacker.create_activity(large, message="history"))["id"]
    for number in range(HISTORY):
        await attacker.put(large, entry, {"message": f"{number}".ljust(5_000, ".")})
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        sizes = ((large, LARGE_ENTRIES), (small, SMALL_ENTRIES), (usual, USUAL_ENTRIES))
        for ticket_id, count in sizes:
            connection.execute(
                """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO ticket_activity (ticket_id, id, activity_type, is_private, created_at,
                actor_id, message, metadata, document_id, version, updated_at, updated_by_id)
                SELECT ticket_id, lower(hex(randomblob(16))), activity_type, is_private, created_at,
                actor_id, message, metadata, document_id, version, updated_at, updated_by_id
                FROM (SELECT * FROM ticket_activity WHERE ticket_id = ?
                ORDER BY length(message) DESC LIMIT 1), n""",
                (count, ticket_id.replace("-", "")),
            )
        connection.commit()
    return large, small, usual, entry


def misreported(file: Path, acknowledged: list[str], refused: list[str]) -> tuple[int, int]:
    """Count creations that were acknowledged but are missing, or refused but are stored."""
    with closing(sqlite3.connect(file)) as connection:
        found = {row[0] for row in connection.execute("SELECT id FROM ticket_activity")}
    stored = [{id_.replace("-", "") for id_ in ids} for ids in (acknowledged, refused)]
    return len(stored[0] - found), len(stored[1] & found)


KINDS: Final = ("PUT", "update", "read by id", "delivery")


def show(
    title: str,
    before: Measured,
    meanwhile: Measured,
    seconds: float,
    judged: Sequence[str] = KINDS,
) -> bool:
    """Print both. Return whether enough throughput remains and no response is wrong."""
    print(f"\n{title}")
    print(f"{'':12} {'a second':>22} {'p99 (ms)':>22} {'left':>6}")
    is_good = not before.wrong and not meanwhile.wrong
    for kind in KINDS:
        rates = before.rate(kind, seconds), meanwhile.rate(kind, seconds)
        left = rates[1] / rates[0] if rates[0] else 0
        is_good &= left >= PORTION or kind not in judged
        print(
            f"{kind:12} {rates[0]:10.0f} {rates[1]:11.0f} "
            f"{before.p99(kind):10.0f} {meanwhile.p99(kind):11.0f} {left:6.0%}"
        )
    for wrong, count in (before.wrong + meanwhile.wrong).items():
        print(f"WRONG: {wrong}, {count} times")
    return is_good


async def course(file: Path, origin: str, accesses: list[str], options: Any) -> bool:
    seconds = options.seconds
    attacker = client(origin, accesses[0])
    tickets = await fill(file, attacker)
    victim = await prepare(origin, accesses[1], 16 + 2 * CLIENTS_OF_A_KIND)
    ours, theirs = Pipe()
    arguments = (theirs, origin, accesses[0], tickets)
    process = get_context("spawn").Process(target=attack, args=arguments, daemon=True)
    process.start()
    try:
        await victim.measure(1)
        before = await victim.measure(seconds)
        kinds = [kind for kind in options.kinds if kind in ATTACKS]
        if not kinds:
            return await beside_crowds(victim, ours, options)
        ours.send((kinds, seconds + 2, options.attackers))
        await asyncio.sleep(1)
        meanwhile = await victim.measure(seconds)
        answers, acknowledged, refused = await asyncio.to_thread(ours.recv)
        is_good = show("Overload by one token", before, meanwhile, seconds)
        print("the attackers:", dict(sorted(answers.items())))
        missing, stored = misreported(file, acknowledged, refused)
        print(f"creations acknowledged and missing: {missing}; refused and stored: {stored}")
        before = await victim.measure(seconds, writers=4)
        ours.send((["pages"], seconds + 2, 0))
        await asyncio.sleep(1)
        meanwhile = await victim.measure(seconds, writers=4)
        await asyncio.to_thread(ours.recv)
        title = "Six readers of pages, eight writers"
        is_good &= show(title, before, meanwhile, seconds, KINDS[:2])
        is_good &= await beside_crowds(victim, ours, options)
        lost = victim.lost(file)
        print(f"\nacknowledged and older in the file: {len(lost)}")
        return is_good and not (lost or missing or stored)
    finally:
        ours.send(None)
        await asyncio.to_thread(process.join, 60)


async def beside_crowds(victim: Victim, ours: Connection, options: Any) -> bool:
    """Measure beside each crowd by itself. Return whether enough remains beside all."""
    is_good = True
    for kind in (kind for kind in options.kinds if kind in CROWDS):
        before = await victim.measure(options.seconds)
        ours.send(([kind], options.seconds + 2, options.attackers))
        await asyncio.sleep(1)
        meanwhile = await victim.measure(options.seconds)
        answers = await asyncio.to_thread(ours.recv)
        is_good &= show(f"A crowd: {kind}", before, meanwhile, options.seconds)
        print("the crowd:", dict(sorted(answers.items())))
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--attackers", type=int, default=4, help="clients of each kind")
    parser.add_argument("--kinds", nargs="+", choices=ALL, default=ALL)
    options = parser.parse_args()
    print("load average before:", *(f"{load:.1f}" for load in os.getloadavg()))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "hostile.db"
        with serve(file) as process:
            scopes = ("activity:read", "activity:write")
            accesses = [token(file, *scopes), token(file, *scopes)]
            is_good = asyncio.run(course(file, process.origin, accesses, options))
    print("load average after:", *(f"{load:.1f}" for load in os.getloadavg()))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
