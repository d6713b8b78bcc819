"""A client that is cut off again and again ends with exactly what the service has."""

import asyncio
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.cursors import seq_in
from tests.support.live import STATE, over_event_stream, over_web_socket
from tests.support.process import Process, serve, token
from tests.support.service import JSON, Client

PRINTER = "019320a4-0000-7000-8000-000000000001"
CUTS = 100
ENTRIES = 10


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut-off") / "tickets.db"


@pytest.fixture(scope="module")
def process(database: Path) -> Iterator[Process]:
    """Two processes that serve one database."""
    with serve(database, workers=2) as running:
        yield running


async def load(author: Client, ticket_id: str, stop: asyncio.Event) -> None:
    """Change entries of a ticket at random until told to stop."""
    chance = random.Random(1)
    entries = [await author.create_activity(ticket_id, message="0") for _ in range(ENTRIES)]
    number = 0
    while not stop.is_set():
        number += 1
        entry = chance.choice(entries)
        body: JSON = {"message": str(number), "isPrivate": chance.random() < 0.3}
        response = await author.put(ticket_id, entry["id"], body)
        assert response.status_code == 200


class Front:
    """A front end: the entries it shows, and how far it has read."""

    def __init__(self, place_of: Callable[[str], int], state: JSON) -> None:
        self.place_of = place_of
        self.cursor: str = state["changesCursor"]
        self.entries = {node["id"]: node for node in state["activities"]["nodes"]}
        self.seqs: list[int] = []

    def apply(self, change: JSON) -> None:
        self.cursor = change["cursor"]
        self.seqs.append(self.place_of(change["cursor"]))
        if change["changeType"] == "REMOVED":
            self.entries.pop(change["activityId"], None)
        else:
            shown = change["ticketActivity"]
            self.entries[shown["id"]] = {
                name: shown[name] for name in ("id", "message", "isPrivate", "version")
            }


async def state_of(client: Client, ticket_id: str) -> JSON:
    document = await client.graphql(STATE, id=ticket_id)
    state: JSON = document["data"]["ticket"]
    return state


async def follow_until(front: Front, stream: Any, count: int) -> None:
    """Take some changes, then cut the connection off."""
    async with stream as changes:
        for _ in range(count):
            front.apply(await anext(changes))


@pytest.mark.parametrize("sees_all", [True, False])
@pytest.mark.parametrize("follow", [over_web_socket, over_event_stream], ids=["ws", "sse"])
async def test_a_client_that_is_cut_off_a_hundred_times_misses_and_repeats_nothing(
    process: Process, database: Path, follow: Any, *, sees_all: bool
) -> None:
    chance = random.Random(2)
    scopes = ["activity:read", "activity:write"]
    async with httpx2.AsyncClient(base_url=process.origin, timeout=30) as http:
        author = Client(http, uuid4(), token(database, *scopes))
        seer = ["activity:private"] if sees_all else []
        reader = Client(http, uuid4(), token(database, "activity:read", *seer))
        ticket_id = await author.create_ticket()
        place_of = partial(seq_in, database, ticket_id)
        front = Front(place_of, await state_of(reader, ticket_id))
        begin = place_of(front.cursor)
        stop = asyncio.Event()
        writing = asyncio.create_task(load(author, ticket_id, stop))

        for _ in range(CUTS):
            stream = follow(process.origin, reader.token, ticket_id, front.cursor)
            await follow_until(front, stream, chance.randrange(5))
        stop.set()
        await writing
        last = await author.create_activity(ticket_id, message="the end")
        stream = follow(process.origin, reader.token, ticket_id, front.cursor)
        async with stream as changes:
            while last["id"] not in front.entries:
                front.apply(await anext(changes))

        state = await state_of(reader, ticket_id)
    assert front.entries == {node["id"]: node for node in state["activities"]["nodes"]}
    assert front.seqs == sorted(set(front.seqs))
    assert place_of(front.cursor) == place_of(state["changesCursor"])
    if sees_all:
        assert front.seqs == list(range(begin + 1, place_of(front.cursor) + 1))


async def test_the_shutdown_of_all_processes_is_quick_and_clean(tmp_path: Path) -> None:
    file = tmp_path / "tickets.db"
    with serve(file, workers=2) as running:
        async with (
            asyncio.timeout(15),
            over_event_stream(running.origin, running.token, PRINTER, None) as changes,
        ):
            assert await asyncio.to_thread(running.end, signal.SIGTERM) == 0
            with pytest.raises(StopAsyncIteration):
                await anext(changes)


def test_the_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    file = tmp_path / "tickets.db"
    with serve(file, workers=2) as running:
        port = int(running.origin.rpartition(":")[2])
        running.end(signal.SIGKILL)

    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.1)
    pytest.fail("a worker still listens")
