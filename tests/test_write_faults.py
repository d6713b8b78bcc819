"""What goes wrong below a write: COMMIT, the engine, the task of the writer, the log of SQLite."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, make_url

from app.activity.commands import CreateTicket, UpdateActivity
from app.activity.outcomes import Outcome
from app.activity.values import generate_uuid7
from app.auth import Scope, Viewer, parse_token
from app.errors import WriteInDoubt
from app.main import create_timeline, running
from app.settings import Settings
from app.store.history import load_changes
from app.store.sqlite import sqlite_file
from app.store.tokens import list_tokens
from tests.support.engines import REFUSED_VALUE
from tests.support.service import UPDATE, Clock, Service

ADA = Viewer(UUID(int=1), "Ada", frozenset(Scope), "test")


def a_ticket(message: str = "opened") -> CreateTicket:
    return CreateTicket(generate_uuid7(Clock().now), message, {})


def poison() -> CreateTicket:
    """What the engine alone refuses; no door lets it through."""
    return a_ticket("half a pair: \ud800")


@contextmanager
def refused(action: int, name: str, told: Callable[[], None]) -> Iterator[None]:
    """Let SQLite refuse an action on every connection that begins a transaction meanwhile."""
    is_on = True

    def authorize(found: int, first: str | None, *_: str | None) -> int:
        if is_on and found == action and first == name:
            told()
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def restrict(connection: Connection) -> None:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.set_authorizer(authorize)

    event.listen(Engine, "begin", restrict)
    try:
        yield
    finally:
        is_on = False
        event.remove(Engine, "begin", restrict)


# COMMIT


@pytest.mark.sqlite
@pytest.mark.parametrize("door", ["rest", "graphql"])
async def test_a_commit_that_failed_is_in_doubt_and_nothing_is_repeated(
    service: Service, door: str
) -> None:
    author = await service.client()
    entry = await author.create_activity(await author.create_ticket(), message="before")
    tried: list[str] = []
    input_ = {"ticketId": entry["ticketId"], "activityId": entry["id"], "message": "lost"}

    with refused(sqlite3.SQLITE_TRANSACTION, "COMMIT", lambda: tried.append("COMMIT")):
        if door == "rest":
            answer = await author.put(entry["ticketId"], entry["id"], {"message": "lost"})
            code = answer.json()["code"]
            assert answer.status_code == 500
        else:
            [error] = (await author.graphql(UPDATE, input=input_))["errors"]
            code = error["extensions"]["code"]

    assert (code, tried) == ("WRITE_IN_DOUBT", ["COMMIT"])
    # The next command begins on what is on disk.
    found = await author.find(entry["ticketId"], entry["id"])
    assert found == entry
    response = await author.put(entry["ticketId"], entry["id"], {"message": "after"})
    assert response.headers["ETag"] == '"2"'
    history = await service.history(entry["ticketId"])
    assert [message for *_, message in history][1:] == ["before", "after"]


@pytest.mark.sqlite
async def test_all_commands_of_a_commit_that_failed_are_in_doubt(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    tried: list[str] = []
    async with running(timeline):
        with refused(sqlite3.SQLITE_TRANSACTION, "COMMIT", lambda: tried.append("COMMIT")):
            found = await asyncio.gather(
                *(timeline.submit(ADA, a_ticket()) for _ in range(5)), return_exceptions=True
            )

        assert {type(each) for each in found} == {WriteInDoubt}
        assert tried == ["COMMIT"]
        assert isinstance(await timeline.submit(ADA, a_ticket()), Outcome)


# The task of the writer


@pytest.mark.parametrize("unit", [1, 2, 3, 4])
async def test_every_caller_is_answered_whichever_unit_of_work_is_cut_off(
    settings: Settings, unit: int
) -> None:
    timeline = create_timeline(settings, Clock())
    writing = asyncio.create_task(timeline.writer.run())
    loop = asyncio.get_running_loop()
    begun = 0

    def cut_off(_connection: Connection) -> None:
        nonlocal begun
        begun += 1
        if begun == unit:
            loop.call_soon_threadsafe(writing.cancel)

    commands = [poison(), a_ticket(), a_ticket()]
    event.listen(Engine, "begin", cut_off)
    try:
        jobs = [asyncio.create_task(timeline.writer.submit(ADA, each)) for each in commands]
        await asyncio.wait([writing])
        async with asyncio.timeout(10):
            found = await asyncio.gather(*jobs, return_exceptions=True)
    finally:
        event.remove(Engine, "begin", cut_off)
        await timeline.reader.database.close()

    # The batch is the first unit of work; then the commands are tried one by one.
    kinds: list[Any] = [REFUSED_VALUE, Outcome, Outcome][: unit - 2] if unit > 2 else []
    kinds += [WriteInDoubt] * (3 - len(kinds))
    assert all(isinstance(each, kind) for each, kind in zip(found, kinds, strict=True))


async def test_the_use_of_a_token_outlives_a_unit_of_work_that_failed(service: Service) -> None:
    client = await service.client()
    token_id = parse_token(client.token).id
    writer = service.app.state.timeline.writer
    writer.record_token_use(token_id, service.clock())

    with pytest.raises(REFUSED_VALUE):
        await writer.submit(ADA, poison())
    await writer.submit(ADA, a_ticket())

    [token] = await service.database.read(list_tokens)
    assert token.last_used_at == service.clock()


# The log of SQLite


def size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


@pytest.mark.sqlite
async def test_the_log_shrinks_at_rest_once_no_reader_is_in_the_way(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    timeline.writer.idle_seconds = 0.05
    file = sqlite_file(make_url(settings.database_url))
    log = file.with_name(f"{file.name}-wal")
    ticket = a_ticket()
    async with running(timeline):
        await timeline.submit(ADA, ticket)
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM ticket").fetchone()
            for number in range(30):
                message = f"{number}" * 30_000
                update = UpdateActivity(ticket.ticket_id, ticket.entry.activity_id, message=message)
                assert isinstance(await timeline.submit(ADA, update), Outcome)
                await asyncio.sleep(0.01 * (number % 10 == 9))
            grown = size(log)
        async with asyncio.timeout(10):
            while size(log):  # noqa: ASYNC110, the file system has no event for it
                await asyncio.sleep(0.01)
        assert isinstance(await timeline.submit(ADA, a_ticket()), Outcome)

    assert grown > 1_000_000


@pytest.mark.sqlite
async def test_a_log_that_cannot_be_truncated_does_not_end_the_writer(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    timeline.writer.idle_seconds = 0
    loop, was_refused = asyncio.get_running_loop(), asyncio.Event()

    def told() -> None:
        loop.call_soon_threadsafe(was_refused.set)

    async with running(timeline):
        with refused(sqlite3.SQLITE_PRAGMA, "wal_checkpoint", told):
            await timeline.submit(ADA, a_ticket())
            await was_refused.wait()

        assert isinstance(await timeline.submit(ADA, a_ticket()), Outcome)


# What a fault says, what a page holds


async def test_a_statement_that_fails_logs_nothing_that_people_wrote(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    author = await service.client()
    entry = await author.create_activity(await author.create_ticket(), message="the first secret")
    await service.execute("ALTER TABLE ticket_activity_change RENAME COLUMN message TO other")

    response = await author.put(entry["ticketId"], entry["id"], {"message": "another secret"})

    assert response.status_code == 500
    assert "ticket_activity_change" in caplog.text
    assert "secret" not in caplog.text


async def test_a_page_of_the_feed_holds_few_large_texts(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    ticket = a_ticket()
    async with running(timeline):
        await timeline.submit(ADA, ticket)
        for number in range(12):
            message = f"{number}".ljust(60_000, ".")
            update = UpdateActivity(ticket.ticket_id, ticket.entry.activity_id, message=message)
            await timeline.submit(ADA, update)
        seqs: list[int] = []
        sizes: list[int] = []
        while page := await timeline.reader.load(
            "a token", partial(load_changes, ticket_id=ticket.ticket_id, after=len(seqs))
        ):
            seqs += [change.seq for change in page]
            sizes.append(len(page))

    assert seqs == list(range(1, 14))
    assert max(sizes) <= 6  # five of them are more than 256 Ki characters


async def test_a_token_that_does_not_exist_is_looked_up_once_in_two_seconds(
    service: Service,
) -> None:
    client = await service.client()
    known = parse_token(client.token).id
    unknown = client.token.replace(known, known[::-1])
    looked_up: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM access_token" in statement:
            looked_up.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for seconds in (0, 0, 1, 2):
            service.clock.advance(seconds=seconds)
            headers = {"Authorization": f"Bearer {unknown}"}
            assert (await service.http.get("/graphql", headers=headers)).status_code == 401
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert len(looked_up) == 2
