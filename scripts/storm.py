"""Writes through several processes on one PostgreSQL, kills them and it, and looks what is there.

Starts a PostgreSQL with its usual durability and processes of the service on one database. Clients
update, create and delete on a few hot tickets and many cold ones, first undisturbed, then while in
each round a process of the service, a process of PostgreSQL, or all of PostgreSQL is killed. At the
end every acknowledged write must be in the history, `seq` without gaps on every ticket, entries as
their last change left them, and each subscriber must have been told every change once and in order.
Everything is bounded and on loopback.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx2

from app.activity.cursors import FeedCursors
from tests.support.live import FEED, FOLLOW
from tests.support.postgresql import StartedServer, running_postgresql
from tests.support.process import Process, serve
from tests.support.service import CREATE_ACTIVITY, CREATE_TICKET, UPDATE, activity_url
from tests.test_merges import DELETE

HOT: Final = 3
COLD: Final = 40
HOT_SHARE: Final = 0.7
EXPECTED: Final = {"VERSION_CONFLICT", "NOT_FOUND"}
DISTURBED: Final = {"BUSY", "RECONNECT", "WRITE_IN_DOUBT", "COMMITTED_UNREAD", "DEADLINE_EXCEEDED"}
"""What a client may be answered while something is killed."""

ALLOWED_RECOVERY_SECONDS: Final = 15


@dataclass(slots=True, eq=False)
class Storm:
    """What the clients know and have been told."""

    origins: list[str]
    token: str
    is_disturbed: bool = False
    is_over: bool = False
    tickets: list[str] = field(default_factory=list)
    entries: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def client(self, number: int) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        origin = self.origins[number % len(self.origins)]
        # `verify` would load certificates for each client.
        return httpx2.AsyncClient(base_url=origin, headers=headers, timeout=60, verify=False)

    def note(self, code: str) -> None:
        """Count an outcome; one that the moment does not explain is an error."""
        self.outcomes[code] += 1
        if code != "ok" and code not in EXPECTED and not (self.is_disturbed and code in DISTURBED):
            self.unexpected.append(code)


async def graphql(http: httpx2.AsyncClient, query: str, **variables: Any) -> tuple[str, Any]:
    """Return a code and the payload of a mutation or query of one field."""
    response = await http.post("/graphql", json={"query": query, "variables": variables})
    document = response.json()
    if document.get("errors"):
        return str(document["errors"][0]["extensions"]["code"]), None
    [payload] = document["data"].values()
    errors = payload.get("userErrors") if isinstance(payload, dict) else None
    return (str(errors[0]["code"]) if errors else "ok"), payload


async def write(storm: Storm, number: int) -> None:
    """Write until the storm is over, as one client of one process."""
    chance = random.Random(number)  # noqa: S311
    async with storm.client(number) as http:
        while not storm.is_over:
            try:
                storm.note(await write_once(storm, http, chance))
            except (httpx2.TransportError, json.JSONDecodeError) as error:
                storm.outcomes[type(error).__name__] += 1
                if not storm.is_disturbed:
                    storm.unexpected.append(repr(error))
                await asyncio.sleep(0.05)


async def write_once(storm: Storm, http: httpx2.AsyncClient, chance: random.Random) -> str:
    is_hot = chance.random() < HOT_SHARE
    ticket_id = chance.choice(storm.tickets[:HOT] if is_hot else storm.tickets[HOT:])
    entries, kind = storm.entries[ticket_id], chance.random()
    message = str(uuid4())
    if kind < 0.25 or not entries:  # noqa: PLR2004
        return await create(storm, http, ticket_id, message)
    entry_id = chance.choice(entries)
    if kind < 0.3:  # noqa: PLR2004
        return await delete(storm, http, ticket_id, entry_id)
    if kind < 0.65:  # noqa: PLR2004
        return await put(storm, http, ticket_id, entry_id, message)
    return await update(storm, http, ticket_id, entry_id, message)


async def create(storm: Storm, http: httpx2.AsyncClient, ticket_id: str, message: str) -> str:
    input_ = {"ticketId": ticket_id, "activityType": "COMMENT", "message": message}
    code, payload = await graphql(http, CREATE_ACTIVITY, input=input_)
    if code == "ok":
        id_ = payload["ticketActivity"]["id"]
        storm.entries[ticket_id].append(id_)
        storm.acknowledged.append((id_, 1, message))
    return code


async def delete(storm: Storm, http: httpx2.AsyncClient, ticket_id: str, entry_id: str) -> str:
    input_ = {"ticketId": ticket_id, "activityId": entry_id}
    code, _ = await graphql(http, DELETE, input=input_)
    if code == "ok":
        storm.deleted.add(entry_id)
        if entry_id in storm.entries[ticket_id]:
            storm.entries[ticket_id].remove(entry_id)
    return code


async def put(
    storm: Storm, http: httpx2.AsyncClient, ticket_id: str, entry_id: str, message: str
) -> str:
    response = await http.put(activity_url(ticket_id, entry_id), json={"message": message})
    if response.status_code != httpx2.codes.OK:
        return str(response.json()["code"])
    storm.acknowledged.append((entry_id, int(response.headers["ETag"].strip('"')), message))
    return "ok"


async def update(
    storm: Storm, http: httpx2.AsyncClient, ticket_id: str, entry_id: str, message: str
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
        storm.acknowledged.append((entry_id, version + 1, message))
    return code


@dataclass(slots=True, eq=False)
class Follower:
    """A subscriber of one ticket, that resumes on the next process after its last cursor."""

    storm: Storm
    ticket_id: str
    number: int
    after: str
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    resumed: int = -1

    async def follow(self) -> None:
        while True:
            self.resumed += 1
            self.number += 1
            try:
                async with self.storm.client(self.number) as http:
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
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, result: Any) -> None:
        event = (result.get("data") or {}).get("ticketActivityChanges")
        if event and event["change"]:
            change = event["change"]
            self.changes.append((event["cursor"], change["changeType"], change["activityId"]))
        self.after = event["cursor"] if event else self.after


async def replay(storm: Storm, ticket_id: str) -> list[tuple[str, str, str]]:
    """Return the changes of a ticket as one who begins now reads them."""
    changes: list[tuple[str, str, str]] = []
    after = None
    async with storm.client(0) as http:
        while True:
            _, page = await graphql(http, FEED, ticketId=ticket_id, after=after, first=100)
            changes += [(n["cursor"], n["changeType"], n["activityId"]) for n in page["nodes"]]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return changes


@dataclass(slots=True, eq=False)
class Machine:
    """The PostgreSQL and the processes of the service that are killed."""

    server: StartedServer
    url: str
    ports: list[int]
    processes: list[Process] = field(default_factory=list)

    def start(self, number: int) -> Process:
        return serve(
            self.url, port=str(self.ports[number]), log=self.server.data.parent / "service"
        )

    async def disturb(self, round_: int) -> str:
        """Kill something; return what."""
        if round_ % 3 == 0:
            number = round_ % len(self.processes)
            self.processes[number].popen.kill()
            self.processes[number].popen.wait()
            self.processes[number] = await asyncio.to_thread(self.start, number)
            return f"process {number} of the service"
        if round_ % 3 == 1:
            os.kill(await self._backend(), signal.SIGKILL)
            return "a process of PostgreSQL"
        self.server.stop(signal.SIGQUIT)
        await asyncio.to_thread(self.server.start)
        return "PostgreSQL"

    async def _backend(self) -> int:
        connection = await asyncpg.connect(self.url.replace("+asyncpg", "", 1))
        try:
            pids = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'ticket-activity'"
            )
        finally:
            await connection.close()
        return int(random.choice(pids)["pid"])  # noqa: S311


async def wait_until_served(storm: Storm) -> float:
    """Return how long it takes until every process accepts a write."""
    began = time.monotonic()
    for number in range(len(storm.origins)):
        async with storm.client(number) as http:
            while True:
                try:
                    code, _ = await graphql(http, CREATE_TICKET, input={})
                except (httpx2.TransportError, json.JSONDecodeError):
                    code = "LOST"
                if code == "ok":
                    break
                await asyncio.sleep(0.05)
    return time.monotonic() - began


async def verify(storm: Storm, url: str, followers: list[Follower]) -> list[str]:
    """Return what is wrong."""
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    key = await connection.fetchval("SELECT key FROM cursor_key")
    changes = await connection.fetch(
        "SELECT ticket_id, seq, activity_id, version, message FROM ticket_activity_change"
        " ORDER BY ticket_id, seq"
    )
    last = dict(await connection.fetch("SELECT id, last_seq FROM ticket"))
    rows = await connection.fetch("SELECT id, version, message, deleted_at FROM ticket_activity")
    entries = {str(row["id"]): (row["version"], row["message"]) for row in rows}
    deleted = {str(row["id"]) for row in rows if row["deleted_at"]}
    entry_of = {(row["ticket_id"], row["seq"]): str(row["activity_id"]) for row in changes}
    await connection.close()
    wrong: list[str] = []
    seqs: dict[UUID, list[int]] = {}
    history: dict[tuple[str, int], str] = {}
    state: dict[str, tuple[int, str]] = {}
    for row in changes:
        seqs.setdefault(row["ticket_id"], []).append(row["seq"])
        history[str(row["activity_id"]), row["version"]] = row["message"]
        state[str(row["activity_id"])] = row["version"], row["message"]
    wrong += [f"seq of {id_}" for id_, found in seqs.items() if found != [*range(1, last[id_] + 1)]]
    wrong += [f"entry {id_}" for id_, found in entries.items() if state[id_] != found]
    wrong += [
        f"acknowledged {id_} at {version}"
        for id_, version, message in storm.acknowledged
        if history.get((id_, version)) != message
    ]
    print(f"{len(changes):,} changes, {len(storm.acknowledged):,} acknowledged writes looked up")
    cursors = FeedCursors(key)
    for follower in followers:
        ticket_id = UUID(follower.ticket_id)
        told = [cursors.open(ticket_id, cursor) for cursor, *_ in follower.changes]
        begin = told[0] if told else 0
        wrong += [f"told again or late: {told}"] if told != sorted(set(told)) else []
        # The past of what has been deleted since is left out for whoever reads it later.
        wrong += [
            f"not told of {seq}"
            for seq in {*range(begin, last[ticket_id] + 1)}.difference(told)
            if entry_of[ticket_id, seq] not in deleted
        ]
        live = {(seq, *change[1:]) for seq, change in zip(told, follower.changes, strict=True)}
        wrong += [
            f"replayed {change}"
            for cursor, *change in await replay(storm, follower.ticket_id)
            if (seq := cursors.open(ticket_id, cursor)) >= begin and (seq, *change) not in live
        ]
    return wrong


async def caught_up(url: str, followers: list[Follower]) -> None:
    """Wait until subscribers have been told the last change, which a deletion is too."""
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    cursors = FeedCursors(await connection.fetchval("SELECT key FROM cursor_key"))
    last = dict(await connection.fetch("SELECT id, last_seq FROM ticket"))
    await connection.close()
    async with asyncio.timeout(30):
        for follower in followers:
            id_ = UUID(follower.ticket_id)
            while cursors.open(id_, follower.after) < last[id_]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def prepare(storm: Storm) -> None:
    async with storm.client(0) as http:
        for _ in range(HOT + COLD):
            _, payload = await graphql(http, CREATE_TICKET, input={})
            storm.tickets.append(payload["ticket"]["id"])
            storm.entries[storm.tickets[-1]] = []


async def run(options: argparse.Namespace, machine: Machine) -> list[str]:
    origins = [process.origin for process in machine.processes]
    storm = Storm(origins, machine.processes[0].token)
    await prepare(storm)
    followers = []
    for ticket_id in storm.tickets[:HOT]:
        start = (await replay(storm, ticket_id))[-1][0]
        followers += [Follower(storm, ticket_id, number, start) for number in range(len(origins))]
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    writing = [asyncio.create_task(write(storm, number)) for number in range(options.clients)]
    await asyncio.sleep(options.seconds)
    print(f"undisturbed, {options.seconds:g} s: {dict(storm.outcomes)}", flush=True)
    storm.is_disturbed = True
    for round_ in range(options.rounds):
        what = await machine.disturb(round_)
        seconds = await wait_until_served(storm)
        print(
            f"round {round_ + 1}: {what} was killed; writes again after {seconds:.1f} s", flush=True
        )
        if seconds > ALLOWED_RECOVERY_SECONDS:
            storm.unexpected.append(f"{seconds:.1f} s without writes")
        await asyncio.sleep(1)
    storm.is_over = True
    await asyncio.gather(*writing)
    await caught_up(machine.url, followers)
    wrong = await verify(storm, machine.url, followers)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    told = sum(len(follower.changes) for follower in followers)
    resumed = sum(follower.resumed for follower in followers)
    print(f"in all: {dict(storm.outcomes)}; {told:,} changes told, {resumed} times resumed")
    return wrong + storm.unexpected


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long undisturbed")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="how often something is killed")
    parser.add_argument("--postgresql", type=int, default=18, help="the version: 16 or 18")
    options = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(
            running_postgresql(options.postgresql, ["max_connections=200"])
        )
        machine = Machine(server, server.url, [free_port() for _ in range(options.processes)])
        for number in range(options.processes):
            machine.processes.append(machine.start(number))
        try:
            wrong = asyncio.run(run(options, machine))
        finally:
            for process in machine.processes:
                with process:
                    pass
    for line in wrong[:20]:
        print(f"WRONG: {line}", file=sys.stderr)
    print("nothing is wrong" if not wrong else f"{len(wrong)} things are wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
