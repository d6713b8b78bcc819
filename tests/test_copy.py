"""A database moves from SQLite to PostgreSQL and back, by `ticket-activity copy`."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from sqlalchemy import select
from sqlmodel import Session, SQLModel

from app.activity.state import Ticket
from app.auth import Scope
from app.cli import main
from app.settings import Settings
from app.store import rows
from app.store.bulk import insert_rows
from app.store.database import open_database
from app.store.migrate import migrate
from tests.support.engines import PostgresqlEngine
from tests.support.live import STATE, feed
from tests.support.process import ROOT, environment
from tests.support.service import MERGE, UPDATE, Client, Clock, Service, start
from tests.support.write_lock import write_lock
from tests.test_delete import DELETE

pytestmark = pytest.mark.postgresql

COUNT = 5_000
METADATA = {"b": 1.0, "a": -0.0, "c": 1e300, "d": 2**63 - 1, "e": [1, {"é": None}], "z": True}


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist."""
    return f"sqlite+aiosqlite:///{tmp_path}/copy.db"


@pytest.fixture
def empty(engine: PostgresqlEngine) -> Iterator[str]:
    """The address of a PostgreSQL database without tables."""
    url = engine.new_database(is_migrated=False)
    yield url
    engine.drop(url)


def command(monkeypatch: pytest.MonkeyPatch, source: str, *words: str) -> int:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", source)
    return main(words)


async def tables_of(url: str) -> dict[str, list[str]]:
    """Return the rows of all tables as text, which tells 1 from 1.0 and 0.0 from -0.0."""

    def read(session: Session) -> dict[str, list[str]]:
        return {
            table.name: sorted(
                repr(tuple(row)) for row in session.connection().execute(select(table))
            )
            for table in SQLModel.metadata.sorted_tables
        }

    database = open_database(url)
    try:
        return await database.read(read)
    finally:
        await database.close()


async def write(url: str, work: Callable[[Session], Any]) -> None:
    """Change a database, after migrating it."""
    database = open_database(url)
    try:
        await migrate(database)
        await database.write(work)
    finally:
        await database.close()


def insert_tickets(count: int) -> Callable[[Session], None]:
    now = Clock().now
    tickets = [Ticket(UUID(int=number), now, 0, now, None) for number in range(count)]
    return lambda session: insert_rows(
        session, rows.TICKET, [rows.ticket_row(ticket) for ticket in tickets]
    )


async def fill(service: Service) -> tuple[Client, str, str]:
    """Write all kinds of rows; return a client, a ticket, and a cursor in the middle."""
    client = await service.client(*Scope)
    await service.revoke(await service.client(lifetime=timedelta(days=1)))
    ticket_id, other_id = await client.create_ticket(), await client.create_ticket()
    entry = await client.create_activity(ticket_id, message="0", metadata=METADATA)
    cursor = (await client.graphql(STATE, id=ticket_id))["data"]["ticket"]["changesCursor"]
    for number in range(1, 4):
        service.clock.advance(seconds=1)
        ids = {"ticketId": ticket_id, "activityId": entry["id"]}
        await client.mutate(UPDATE, **ids, message=str(number))
    gone = await client.create_activity(ticket_id, message="gone", isPrivate=True)
    await client.mutate(DELETE, ticketId=ticket_id, activityId=gone["id"])
    await client.mutate(MERGE, sourceId=ticket_id, targetId=other_id)
    return client, ticket_id, cursor


async def seen_by(service: Service, token: Client, ticket_id: str, cursor: str) -> Any:
    """Return what a client of that token reads, and what came after a cursor."""
    client = Client(service.http, token.actor_id, token.token)
    nodes = (await client.graphql(STATE, id=ticket_id))["data"]["ticket"]["activities"]["nodes"]
    entries = [await client.find(ticket_id, node["id"]) for node in nodes]
    changes = (await feed(client, ticket_id, cursor))["nodes"]
    return entries, [(change["changeType"], change["ticketActivity"]) for change in changes]


async def test_a_copy_to_sqlite_and_back_is_the_same_to_rows_and_clients(
    settings: Settings,
    file: str,
    empty: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with start(settings) as service:
        client, ticket_id, cursor = await fill(service)
        seen = await seen_by(service, client, ticket_id, cursor)
    source = await tables_of(settings.database_url)

    for begin, end in ((settings.database_url, file), (file, empty)):
        status = await asyncio.to_thread(command, monkeypatch, begin, "copy", "--to", end)
        assert (status, await tables_of(end)) == (0, source)

    total = sum(len(table) for table in source.values())
    said = capsys.readouterr()
    assert [line.split(" rows to ")[0] for line in said.out.splitlines()] == [f"Copied {total}"] * 2
    assert "[#" not in said.err  # no bar where there is no terminal
    for url in (file, empty):
        async with start(settings.model_copy(update={"database_url": url})) as service:
            assert await seen_by(service, client, ticket_id, cursor) == seen
            assert await Client(service.http, client.actor_id, client.token).create_ticket()


def test_a_copy_that_was_cut_off_is_not_served_and_is_finished(
    engine: PostgresqlEngine,
    empty: str,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    anyio.run(write, file, insert_tickets(COUNT))
    other = file.replace("copy.db", "other.db")
    words = [str(ROOT / ".venv/bin/ticket-activity"), "copy", "--to", empty]
    with subprocess.Popen(words, env=environment(file)) as copying:
        wait_for_pages(engine, empty)
        copying.kill()
    part = engine.server.execute("SELECT count(*) FROM ticket", empty)[0][0]

    assert command(monkeypatch, empty, "serve") == 1
    assert "unfinished copy" in capsys.readouterr().err
    anyio.run(write, other, insert_tickets(1))
    assert command(monkeypatch, other, "copy", "--to", empty) == 1
    assert "is an unfinished copy of another database" in capsys.readouterr().err
    terminal, child = os.openpty()
    with subprocess.Popen(words, env=environment(file), stderr=child) as finishing:
        os.close(child)
        shown = read_all(terminal)

    assert (copying.returncode, finishing.returncode) == (-signal.SIGKILL, 0)
    assert 0 < part < COUNT
    assert f"] {part:,} of {COUNT:,}" in shown  # it went on there
    assert f"[{'#' * 30}] {COUNT:,} of {COUNT:,}" in shown
    assert anyio.run(tables_of, empty) == anyio.run(tables_of, file)


def wait_for_pages(engine: PostgresqlEngine, url: str) -> None:
    """Wait until some pages of tickets have been copied."""
    while engine.server.execute("SELECT to_regclass('copy_progress')", url)[0][0] is None:
        pass
    while not engine.server.execute("SELECT 1 FROM copy_progress WHERE table_name = 'ticket'", url):
        pass


def read_all(terminal: int) -> str:
    """Read a terminal until its other end is closed, which is an error of the device."""
    read = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            read += part
    os.close(terminal)
    return read.decode()


async def test_what_is_not_empty_is_no_target(
    settings: Settings,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    postgresql = settings.database_url
    for url in (file, postgresql):
        await write(url, insert_tickets(1))

    for begin, end in ((file, postgresql), (postgresql, file), (postgresql, postgresql)):
        status = await asyncio.to_thread(command, monkeypatch, begin, "copy", "--to", end)
        [line] = capsys.readouterr().err.splitlines()
        assert status == 1
        assert "is not empty: it has rows in ticket" in line


async def test_a_source_that_somebody_writes_to_is_refused(
    settings: Settings,
    file: str,
    empty: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_LOCK_SECONDS", "0.1")
    await write(file, insert_tickets(1))
    for source in (file, settings.database_url):
        async with write_lock(source):
            status = await asyncio.to_thread(command, monkeypatch, source, "copy", "--to", empty)

        assert (status, len(capsys.readouterr().err.splitlines())) == (1, 1)


async def test_a_source_that_changed_between_two_runs_is_found_by_the_checksums(
    settings: Settings,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await write(file, insert_tickets(3))
    assert (
        await asyncio.to_thread(command, monkeypatch, file, "copy", "--to", settings.database_url)
        == 0
    )
    unfinish = [
        "CREATE TABLE copy_progress (table_name VARCHAR PRIMARY KEY, last_key JSON NOT NULL)",
        "INSERT INTO copy_progress VALUES "
        """('cursor_key', '["1"]'), ('ticket', '["00000000-0000-0000-0000-000000000002"]')""",
    ]
    await write(settings.database_url, lambda session: run_all(session, unfinish))
    await write(file, lambda session: run_all(session, ["UPDATE ticket SET last_seq = 7"]))

    status = await asyncio.to_thread(
        command, monkeypatch, file, "copy", "--to", settings.database_url
    )

    assert status == 1
    assert "the source was changed between two runs" in capsys.readouterr().err


def run_all(session: Session, statements: Sequence[str]) -> None:
    for statement in statements:
        session.connection().exec_driver_sql(statement)


def test_what_is_no_address_is_said_of_the_option(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, file, "copy", "--to", "mysql://x") == 1
    assert capsys.readouterr().err.startswith("ticket-activity: --to ")
