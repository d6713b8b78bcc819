"""A PostgreSQL that stops answering and closes no connection: its processes are stopped for it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import migrate
from tests.support.live import listening, over_web_socket
from tests.support.postgresql import StartedServer, execute, running_postgresql
from tests.support.service import Client, activity_url, start

pytestmark = pytest.mark.postgresql

SECONDS = {
    "database_connect_seconds": 0.3,
    "database_lock_seconds": 0.3,
    "database_statement_seconds": 0.3,
    "database_answer_seconds": 0.3,
    "database_poll_seconds": 0.1,
}
DEADLINE_SECONDS = 10
"""Far more than a request may take with these settings, and less than an endless one."""


@pytest.fixture(scope="module")
def server() -> Iterator[StartedServer]:
    with running_postgresql() as server:
        yield server


@pytest.fixture
async def settings(server: StartedServer) -> Settings:
    database = open_database(server.url)
    await migrate(database)
    await database.close()
    return Settings.model_validate({"database_url": server.url} | SECONDS)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes, and let them go on at the end."""
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)


async def all_processes(server: StartedServer) -> list[int]:
    rows = await execute(server.url, "SELECT pid FROM pg_stat_activity")
    return [server.popen.pid, *{row["pid"] for row in rows}]


@contextmanager
def stops(name: str, statement: str = "") -> Iterator[list[int]]:
    """Stop the process of PostgreSQL behind the connection at the next event, before what follows.

    Yields a list that then holds its id; it goes on at the end.
    """
    found: list[int] = []

    def stop(connection: Any, _cursor: Any = None, text: str = "", *_: Any) -> None:
        if not found and statement in text:
            found.append(connection.connection.driver_connection.get_server_pid())
            send(found, signal.SIGSTOP)

    event.listen(SqlEngine, name, stop)
    try:
        yield found
    finally:
        event.remove(SqlEngine, name, stop)
        send(found, signal.SIGCONT)


async def until(works: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await works()).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def get(client: Client, entry: Any) -> Any:
    headers = {"Authorization": f"Bearer {client.token}"}
    return await client.http.get(activity_url(entry["ticketId"], entry["id"]), headers=headers)


async def put(client: Client, entry: Any, message: str) -> Any:
    return await client.put(entry["ticketId"], entry["id"], {"message": message})


async def an_entry(client: Client) -> Any:
    return await client.create_activity(await client.create_ticket(), message="before")


async def test_while_the_server_is_stopped_all_is_busy_and_then_all_goes_on(
    server: StartedServer, settings: Settings
) -> None:
    async with start(settings) as service, listening(service) as origin:
        author = await service.client()
        entry = await an_entry(author)
        async with over_web_socket(origin, author.token, entry["ticketId"], None) as changes:
            with stopped(await all_processes(server)):
                began = time.monotonic()
                read, write, ready = await asyncio.gather(
                    get(author, entry), put(author, entry, "lost"), service.http.get("/readyz")
                )
                taken = time.monotonic() - began

            assert [read.status_code, write.status_code, ready.status_code] == [503] * 3
            assert [each.json()["code"] for each in (read, write)] == ["BUSY"] * 2
            assert [each.headers["Retry-After"] for each in (read, write)] == ["1"] * 2
            assert taken < DEADLINE_SECONDS
            await until(lambda: put(author, entry, "after"))
            async with asyncio.timeout(DEADLINE_SECONDS):
                change = await anext(changes)
        assert change["ticketActivity"]["message"] == "after"
        assert (change["ticketActivity"]["version"], (await get(author, entry)).status_code) == (
            2,
            200,
        )


async def test_a_listening_connection_that_is_stopped_is_replaced(settings: Settings) -> None:
    listeners = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    quick = settings.model_copy(update={"database_poll_seconds": 0.03})
    async with start(quick) as service, listening(service) as origin:
        author = await service.client()
        entry = await an_entry(author)
        async with over_web_socket(origin, author.token, entry["ticketId"], None):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not (found := await execute(settings.database_url, listeners)):
                    pass
                with stopped([row["pid"] for row in found]):
                    while len(await execute(settings.database_url, listeners)) == len(found):
                        pass


async def test_a_service_ends_while_the_server_is_stopped(
    server: StartedServer, settings: Settings
) -> None:
    service = start(settings)
    author = await (await service.__aenter__()).client()
    await an_entry(author)

    with stopped(await all_processes(server)):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await service.__aexit__(None, None, None)


async def test_a_process_that_stops_before_the_commit_makes_that_write_busy_and_no_other(
    settings: Settings,
) -> None:
    async with start(settings) as service:
        author = await service.client()
        entry, other = await an_entry(author), await an_entry(author)

        with stops("after_cursor_execute", "FOR NO KEY UPDATE"):
            busy = await put(author, entry, "lost")
            still_held = await put(author, entry, "lost")
            elsewhere = await put(author, other, "kept")

        assert [busy.status_code, busy.json()["code"]] == [503, "BUSY"]
        assert [still_held.status_code, still_held.json()["code"]] == [503, "BUSY"]
        assert elsewhere.status_code == 200
        await until(lambda: put(author, entry, "after"))
        found = await author.find(entry["ticketId"], entry["id"])
        assert found
        assert (found["version"], found["message"]) == (2, "after")


async def test_a_process_that_stops_in_the_commit_leaves_that_write_in_doubt_and_no_other(
    settings: Settings,
) -> None:
    async with start(settings) as service:
        author = await service.client()
        entry, other = await an_entry(author), await an_entry(author)

        with stops("commit"):
            doubtful = await put(author, entry, "in doubt")
            elsewhere = await put(author, other, "kept")

        assert (doubtful.status_code, doubtful.json()["code"]) == (500, "WRITE_IN_DOUBT")
        assert elsewhere.status_code == 200
        await until(lambda: put(author, entry, "after"))
        found = await author.find(entry["ticketId"], entry["id"])
        assert found
        assert (found["version"], found["message"]) in [(2, "after"), (3, "after")]


async def test_a_process_that_stops_makes_the_reads_on_its_connection_busy_and_no_others(
    settings: Settings,
) -> None:
    async with start(settings) as service:
        author = await service.client()
        entry = await an_entry(author)

        with stops("before_cursor_execute", "ticket_activity.message"):
            busy = await get(author, entry)
            others = await asyncio.gather(*(get(author, entry) for _ in range(20)))

        assert (busy.status_code, busy.json()["code"]) == (503, "BUSY")
        assert [each.status_code for each in others] == [200] * 20
