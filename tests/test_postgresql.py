"""What is PostgreSQL's own: several processes, lost connections, the bell, folded text, JSON."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event, literal, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.activity.commands import CreateActivity, CreateTicket, RedactActivity, UpdateActivity
from app.activity.outcomes import Outcome
from app.activity.state import ActivityType
from app.activity.values import generate_uuid7
from app.auth import Scope, Viewer
from app.cli import main
from app.errors import Busy, ServiceError, WriteInDoubt
from app.main import create_timeline, running
from app.settings import Settings
from app.store.database import open_database
from app.store.errors import DatabaseUnusable
from app.store.loads import Snapshot
from app.store.migrate import migrate, require_current
from app.store.text_search import holds_words
from app.timeline import Timeline
from tests.support.engines import PostgresqlEngine
from tests.support.postgresql import StartedServer, running_postgresql, until_waiting
from tests.support.service import UPDATE, Clock, start

pytestmark = pytest.mark.postgresql

ADA = Viewer(UUID(int=1), "Ada", frozenset(Scope), "test")


def a_ticket() -> CreateTicket:
    return CreateTicket(generate_uuid7(Clock().now), "opened", {})


def a_comment(ticket: CreateTicket, message: str) -> CreateActivity:
    return CreateActivity(
        ticket.ticket_id,
        generate_uuid7(Clock().now),
        ActivityType.COMMENT,
        message,
        {},
        False,
        None,
    )


@asynccontextmanager
async def process(settings: Settings, **changed: Any) -> AsyncIterator[Timeline]:
    """Run what a process of the service runs, on a database that others use too."""
    timeline = create_timeline(settings.model_copy(update=changed), Clock())
    async with running(timeline):
        yield timeline


@contextmanager
def once(name: str, act: Any) -> Iterator[None]:
    """Call a function at the next event of any engine, and at no later one."""
    left = [act]

    def handle(*arguments: Any) -> None:
        if left:
            left.pop()(*arguments)

    event.listen(SqlEngine, name, handle)
    try:
        yield
    finally:
        event.remove(SqlEngine, name, handle)


def pid_of(connection: Any) -> int:
    pid: int = connection.connection.driver_connection.get_server_pid()
    return pid


async def messages(timeline: Timeline) -> list[str | None]:
    """Return the messages of all entries, but the opening ones."""
    statement = text("SELECT message FROM ticket_activity WHERE activity_type = 'comment'")
    found = await timeline.reader.database.read(
        lambda session: session.connection().execute(statement).scalars().all()
    )
    return list(found)


# Several processes


async def test_processes_that_write_to_the_same_tickets_lose_and_reorder_nothing(
    settings: Settings,
) -> None:
    tickets = [a_ticket() for _ in range(4)]
    async with process(settings) as one, process(settings) as other:
        for ticket in tickets:
            await one.submit(ADA, ticket)

        async def write(timeline: Timeline, name: str) -> None:
            for number in range(10):
                for ticket in tickets if name < "c" else reversed(tickets):
                    comment = a_comment(ticket, f"{name}{number}")
                    assert isinstance(await timeline.submit(ADA, comment), Outcome)
                    update = UpdateActivity(
                        ticket.ticket_id, ticket.entry.activity_id, message=f"{name}{number}"
                    )
                    assert isinstance(await timeline.submit(ADA, update), Outcome)

        await asyncio.gather(
            *(
                write(timeline, name)
                for timeline, name in zip([one, other] * 2, "abcd", strict=True)
            )
        )
        rows = await one.reader.database.read(histories)

    for ticket in tickets:
        found = [row for row in rows if row.ticket_id == ticket.ticket_id]
        assert [row.seq for row in found] == list(range(1, 82))
        latest = {row.activity_id: (row.version, row.message) for row in found}
        assert len(latest) == 41
        assert latest == {row.activity_id: (row.version_now, row.message_now) for row in found}
        assert latest[ticket.entry.activity_id][0] == 41


def histories(session: Session) -> list[Any]:
    """Return every change in order, with the entry and the ticket as they are now."""
    statement = text(
        "SELECT c.*, a.version AS version_now, a.message AS message_now "
        "FROM ticket_activity_change AS c JOIN ticket_activity AS a "
        "ON a.ticket_id = c.ticket_id AND a.id = c.activity_id ORDER BY c.ticket_id, c.seq"
    )
    return list(session.connection().execute(statement))


async def test_processes_that_start_together_migrate_once(engine: PostgresqlEngine) -> None:
    url = engine.new_database(is_migrated=False)
    databases = [open_database(url) for _ in range(4)]

    await asyncio.gather(*(migrate(database) for database in databases))

    for database in databases:
        await require_current(database)
        await database.close()
    assert len(engine.server.execute("SELECT id FROM cursor_key", url)) == 1
    engine.drop(url)


@pytest.mark.parametrize(
    "how",
    [{"database_poll_seconds": 1000}, {"database_poll_seconds": 0.05, "database_listen": False}],
    ids=["by the bell", "by asking"],
)
async def test_a_change_by_another_process_wakes_a_reader(
    settings: Settings, engine: PostgresqlEngine, how: dict[str, Any]
) -> None:
    ticket = a_ticket()
    async with process(settings, **how) as one, process(settings, **how) as other:
        created = await one.submit(ADA, ticket)
        [change_] = created.changes
        async with aclosing(one.feed.follow(ticket.ticket_id, change_.seq, ADA)) as changes:
            news = asyncio.ensure_future(anext(changes))
            if how.get("database_listen", True):
                await until_somebody_listens(settings, engine)
            await other.submit(ADA, a_comment(ticket, "from afar"))

            async with asyncio.timeout(10):
                assert [change.activity.message for change in await news] == ["from afar"]


async def test_of_thousands_of_followed_tickets_each_is_asked_for(settings: Settings) -> None:
    how = {"database_poll_seconds": 0.05, "database_listen": False}
    ticket = a_ticket()
    async with process(settings, **how) as one, process(settings, **how) as other:
        created = await one.submit(ADA, ticket)
        seq = created.changes[0].seq
        followed = [UUID(int=number) for number in range(2100)] + [ticket.ticket_id]
        readers = [one.feed.follow(id_, seq, ADA) for id_ in followed]
        waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
        await other.submit(ADA, a_comment(ticket, "from afar"))

        async with asyncio.timeout(30):
            changes = await waiting[-1]
        assert [change.activity.message for change in changes] == ["from afar"]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for reader in readers:
            await reader.aclose()


async def test_a_lost_listener_is_replaced_and_nothing_is_missed(
    settings: Settings, engine: PostgresqlEngine
) -> None:
    ticket = a_ticket()
    async with process(settings, database_poll_seconds=1000) as one, process(settings) as other:
        created = await one.submit(ADA, ticket)
        [change_] = created.changes
        async with aclosing(one.feed.follow(ticket.ticket_id, change_.seq, ADA)) as changes:
            news = asyncio.ensure_future(anext(changes))
            await until_somebody_listens(settings, engine)
            url = settings.database_url
            ended = engine.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()",
                url,
            )
            await other.submit(ADA, a_comment(ticket, "meanwhile"))

            async with asyncio.timeout(10):
                assert [change.activity.message for change in await news] == ["meanwhile"]
    assert len(ended) == 1


async def test_a_bell_whose_connection_was_ended_rings_again(
    settings: Settings, engine: PostgresqlEngine
) -> None:
    ticket = a_ticket()
    async with process(settings, database_poll_seconds=1000) as one, process(settings) as other:
        seq = (await one.submit(ADA, ticket)).changes[0].seq
        async with aclosing(one.feed.follow(ticket.ticket_id, seq, ADA)) as changes:
            news = asyncio.ensure_future(anext(changes))
            await until_somebody_listens(settings, engine)
            async with asyncio.timeout(10):
                await other.submit(ADA, a_comment(ticket, "first"))
                assert [change.activity.message for change in await news] == ["first"]
                ended = engine.server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'SELECT pg_notify%' AND datname = current_database()",
                    settings.database_url,
                )
                news = asyncio.ensure_future(anext(changes))
                await other.submit(ADA, a_comment(ticket, "second"))
                assert [change.activity.message for change in await news] == ["second"]
    assert ended


async def until_somebody_listens(settings: Settings, engine: PostgresqlEngine) -> None:
    listening = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    async with asyncio.timeout(10):
        while not engine.server.execute(listening, settings.database_url):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Lost connections


async def test_a_connection_lost_before_the_commit_is_replaced(
    settings: Settings, engine: PostgresqlEngine
) -> None:
    ticket = a_ticket()
    async with process(settings) as timeline:
        await timeline.submit(ADA, ticket)

        def end(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            engine.server.execute(f"SELECT pg_terminate_backend({pid_of(connection)})")

        with once("after_cursor_execute", end):
            await timeline.submit(ADA, a_comment(ticket, "kept"))

        assert await messages(timeline) == ["kept"]


async def test_a_connection_lost_during_the_commit_is_in_doubt(
    settings: Settings, engine: PostgresqlEngine
) -> None:
    ticket = a_ticket()
    async with process(settings) as timeline:
        await timeline.submit(ADA, ticket)

        def end(connection: Any) -> None:
            engine.server.execute(f"SELECT pg_terminate_backend({pid_of(connection)})")

        with once("commit", end), pytest.raises(WriteInDoubt):
            await timeline.submit(ADA, a_comment(ticket, "in doubt"))

        assert await messages(timeline) in ([], ["in doubt"])
        await timeline.submit(ADA, a_comment(ticket, "after"))
        assert (await messages(timeline))[-1] == "after"


@pytest.mark.parametrize("door", ["rest", "graphql"])
async def test_both_doors_say_that_a_write_is_in_doubt(
    settings: Settings, engine: PostgresqlEngine, door: str
) -> None:
    def end(connection: Any) -> None:
        engine.server.execute(f"SELECT pg_terminate_backend({pid_of(connection)})")

    async with start(settings) as service:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="before")
        ticket_id, id_ = entry["ticketId"], entry["id"]
        input_ = {"ticketId": ticket_id, "activityId": id_, "message": "after"}

        with once("commit", end):
            if door == "rest":
                answer = await author.put(ticket_id, id_, {"message": "after"})
                code = answer.json()["code"]
                assert answer.status_code == 500
            else:
                document = await author.graphql(UPDATE, input=input_)
                [error] = document["errors"]
                code = error["extensions"]["code"]

        assert code == "WRITE_IN_DOUBT"
        found = await author.find(ticket_id, id_)
        assert found
        assert (found["version"], found["message"]) in [(1, "before"), (2, "after")]
        assert (await author.put(ticket_id, id_, {"message": "again"})).status_code == 200


async def test_a_deadlock_is_resolved_by_a_repetition(settings: Settings) -> None:
    first, second = sorted([a_ticket(), a_ticket()], key=lambda ticket: ticket.ticket_id)
    async with process(settings) as timeline:
        await asyncio.gather(timeline.submit(ADA, first), timeline.submit(ADA, second))
        other = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))
        await other.execute("SET deadlock_timeout = '1min'; BEGIN")
        lock = "SELECT id FROM ticket WHERE id = $1 FOR UPDATE"
        await other.execute(lock, second.ticket_id)

        writes = asyncio.gather(
            timeline.submit(ADA, a_comment(first, "one")),
            timeline.submit(ADA, a_comment(second, "two")),
        )
        await until_waiting(other)
        await other.execute(lock, first.ticket_id)  # a deadlock, until the writer gives way
        await other.execute("COMMIT")
        await writes
        await other.close()

        assert sorted(map(str, await messages(timeline))) == ["one", "two"]


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"], ids=["in a statement", "in the COMMIT"])
@pytest.mark.parametrize(("times", "status"), [(1, 200), (99, 503)])
async def test_what_gives_way_to_others_is_repeated_some_times_and_then_busy(
    settings: Settings, engine: PostgresqlEngine, when: str, times: int, status: int
) -> None:
    give_way = [
        "CREATE SEQUENCE tried",
        f"""
        CREATE FUNCTION give_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tried') <= {times} THEN RAISE SQLSTATE '40001'; END IF;
            RETURN NULL;
        END $$
        """,
        "CREATE CONSTRAINT TRIGGER give_way AFTER UPDATE ON ticket_activity "
        f"DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION give_way()",
    ]
    async with start(settings) as service:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="before")
        for statement in give_way:
            engine.server.execute(statement, settings.database_url)

        answer = await author.put(entry["ticketId"], entry["id"], {"message": "after"})

        assert answer.status_code == status
        assert answer.json().get("code") == (None if status == 200 else "BUSY")
        history = await service.history(entry["ticketId"])
        assert [message for *_, message in history[2:]] == ["after"] * (status == 200)
        [(tried,)] = engine.server.execute("SELECT last_value FROM tried", settings.database_url)
        assert tried == (2 if status == 200 else 5)


async def test_a_redaction_waits_for_the_keys_that_are_being_claimed(settings: Settings) -> None:
    """The answer under such a key may be read before the redaction is committed."""
    ticket, comment = a_ticket(), a_comment(a_ticket(), "swordfish")
    comment = replace(comment, ticket_id=ticket.ticket_id)
    claim = """
        INSERT INTO idempotency_key (owner, key, actor_id, fingerprint, created_at, verdicts,
                                     status, headers, body, is_forgotten)
        VALUES ('x', 'y', gen_random_uuid(), '', now(), '{}', 200, '{}', 'swordfish', false)
    """
    async with process(settings) as timeline:
        await timeline.submit(ADA, ticket)
        await timeline.submit(ADA, comment)
        other = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))
        async with other.transaction():
            await other.execute(claim)
            redact = RedactActivity(ticket.ticket_id, comment.activity_id, reason="asked")
            redacting = asyncio.create_task(timeline.submit(ADA, redact))
            await until_waiting(other)
            # As who has claimed a key does. That what waits holds a ticket would be a deadlock.
            lock = "SELECT id FROM ticket WHERE id = $1 FOR UPDATE NOWAIT"
            assert await other.fetchval(lock, ticket.ticket_id) == ticket.ticket_id
        await redacting

        assert await other.fetchval("SELECT body FROM idempotency_key") is None
        await other.close()


async def test_the_limit_of_a_shared_read_does_not_end_what_brings_its_snapshot_back(
    settings: Settings,
) -> None:
    def limit(session: Session) -> str:
        setting = text("SELECT current_setting('statement_timeout')")
        return str(session.connection().execute(setting).scalar_one())

    def limit_within(session: Session) -> str:
        session.connection().exec_driver_sql("ROLLBACK TO SAVEPOINT snapshot")
        return limit(session)

    async def operation(snapshot: Snapshot) -> list[str]:
        found = [await snapshot.load(limit), await snapshot.load(limit_within)]
        with pytest.raises(DBAPIError):
            await snapshot.load(lambda session: session.connection().exec_driver_sql("SELECT 1/0"))
        return [*found, await snapshot.load(limit)]

    async with process(settings) as timeline:
        assert await timeline.reader.read("test", operation) == ["100ms", "0", "100ms"]


@pytest.fixture
def server() -> Iterator[StartedServer]:
    with running_postgresql() as server:
        yield server


async def test_without_the_server_everything_is_busy_and_with_it_everything_works(
    server: StartedServer,
) -> None:
    database = open_database(server.url)
    await migrate(database)
    await database.close()
    ticket = a_ticket()
    async with process(Settings(database_url=server.url)) as timeline:
        await timeline.submit(ADA, ticket)

        server.stop(signal.SIGQUIT)
        with pytest.raises(Busy):
            await timeline.submit(ADA, a_comment(ticket, "lost"))
        with pytest.raises(Busy):
            await timeline.read(ADA, lambda view: view.load_tickets([ticket.ticket_id]))
        server.start()

        await recovered(timeline, ticket)
        assert await messages(timeline) == ["kept"]


async def test_a_standby_is_not_used(server: StartedServer) -> None:
    """As after a failover, where the address still leads to what was the primary."""
    database = open_database(server.url)
    await migrate(database)
    await database.close()
    ticket = a_ticket()
    signal_file = server.data / "standby.signal"
    async with process(Settings(database_url=server.url)) as timeline:
        await timeline.submit(ADA, ticket)

        server.stop(signal.SIGQUIT)
        signal_file.touch()
        server.start()
        with pytest.raises(Busy):
            await timeline.submit(ADA, a_comment(ticket, "lost"))
        with pytest.raises(Busy):
            await timeline.read(ADA, lambda view: view.load_tickets([ticket.ticket_id]))
        with pytest.raises(DatabaseUnusable, match=r"cannot be reached: the server is a standby\."):
            await timeline.reader.database.require_usable(0, print)

        server.stop(signal.SIGQUIT)
        signal_file.unlink()
        server.start()
        await recovered(timeline, ticket)
        assert await messages(timeline) == ["kept"]


@pytest.mark.parametrize(
    ("none", "again"), [("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"), ("NOLOGIN", "LOGIN")]
)
async def test_while_no_connection_can_be_had_all_is_busy_and_then_all_goes_on(
    settings: Settings, engine: PostgresqlEngine, none: str, again: str
) -> None:
    role = "service_without_connections"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
    ):
        engine.server.execute(statement, settings.database_url)
    address = make_url(settings.database_url).set(username=role)
    url = address.render_as_string(hide_password=False)
    try:
        async with start(settings.model_copy(update={"database_url": url})) as service:
            author = await service.client()
            entry = await author.create_activity(await author.create_ticket(), message="before")
            place = entry["ticketId"], entry["id"]
            engine.server.execute(f"ALTER ROLE {role} {none}")
            engine.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = 'service_without_connections'"
            )

            busy = await author.put(*place, {"message": "lost"})
            engine.server.execute(f"ALTER ROLE {role} {again}")

            assert (busy.status_code, busy.json()["code"]) == (503, "BUSY")
            assert busy.headers["Retry-After"] == "1"
            async with asyncio.timeout(10):
                answer = busy
                while answer.status_code != 200:
                    answer = await author.put(*place, {"message": "after"})
            assert answer.headers["ETag"] == '"2"'
    finally:
        engine.server.execute(f"DROP OWNED BY {role}", settings.database_url)
        engine.server.execute(f"DROP ROLE {role}")


async def recovered(timeline: Timeline, ticket: CreateTicket) -> None:
    """Wait until reads and writes work again."""
    async with asyncio.timeout(20):
        while True:
            try:
                await timeline.read(ADA, lambda view: view.load_tickets([ticket.ticket_id]))
                await timeline.submit(ADA, a_comment(ticket, "kept"))
            except ServiceError:
                await asyncio.sleep(0.05)
            else:
                return


def test_a_start_without_the_server_is_one_line_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql+asyncpg://service:secret@127.0.0.1:{port}/tickets"
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", url)
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_START_SECONDS", "0.6")

    assert main(["migrate"]) == 1

    waiting, refused = capsys.readouterr().err.splitlines()
    assert waiting.startswith(
        f"ticket-activity: The database tickets at 127.0.0.1:{port} cannot be reached yet"
    )
    assert refused.startswith(
        f"ticket-activity: The database tickets at 127.0.0.1:{port} cannot be reached: "
    )
    assert "secret" not in waiting + refused


def test_a_start_before_a_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql+asyncpg://service@127.0.0.1:{port}/tickets"
        monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", url)
        monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_START_SECONDS", "0")
        monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_CONNECT_SECONDS", "0.2")

        assert main(["migrate"]) == 1

    assert capsys.readouterr().err == (
        f"ticket-activity: The database tickets at 127.0.0.1:{port} cannot be reached: "
        "no answer within 0.2 seconds.\n"
    )


def test_a_start_that_may_not_migrate_refuses_a_database_that_is_behind(
    engine: PostgresqlEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = engine.new_database(is_migrated=False)
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", url)
    monkeypatch.setenv("TICKET_ACTIVITY_MIGRATE_AT_START", "false")
    monkeypatch.setenv("TICKET_ACTIVITY_PORT", "0")

    assert main(["serve"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert "behind this code" in line
    engine.drop(url)


@pytest.mark.parametrize("may_migrate", ["true", "false"])
def test_a_start_refuses_a_database_of_a_newer_release(
    settings: Settings,
    engine: PostgresqlEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    may_migrate: str,
) -> None:
    newer = "UPDATE alembic_version SET version_num = 'from_tomorrow'"
    engine.server.execute(newer, settings.database_url)
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("TICKET_ACTIVITY_MIGRATE_AT_START", may_migrate)
    monkeypatch.setenv("TICKET_ACTIVITY_PORT", "0")

    assert main(["serve"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert "newer than this code: it is at migration from_tomorrow" in line


# Text and JSON

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
folding = st.text(characters) | st.text("ßẞſKÅİıΣσςﬁﬃŉǰΐᾳ Aa\u0307\u0345")


@pytest.fixture(scope="module")
def finds(blank: Settings) -> Iterator[Callable[[str, list[str]], bool]]:
    """Ask the database whether a text holds words."""
    with start_blocking_portal() as portal:
        database = portal.call(open_database, blank.database_url)

        def ask(message: str, words: list[str]) -> bool:
            found: Any = select(holds_words(literal(message), words))  # type: ignore[arg-type]
            holds: bool = portal.call(
                database.read, lambda session: session.connection().execute(found).scalar_one()
            )
            return holds

        yield ask
        portal.call(database.close)


@settings(max_examples=100)
@given(message=folding, sought=folding, ends=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_text_is_found_as_python_folds_it(
    finds: Callable[[str, list[str]], bool], message: str, sought: str, ends: tuple[int, int]
) -> None:
    folded = message.casefold()
    for words in (sought.casefold().split(), folded[min(ends) : max(ends)].split()):
        if words:
            assert finds(message, words) is all(word in folded for word in words)


async def test_json_keeps_what_jsonb_would_change(settings: Settings) -> None:
    written = '{"b":1.0,"a":-0.0,"c":1e300,"d":9223372036854775807}'

    def stored_as(type_: str) -> Any:
        statement = text(f"SELECT CAST(CAST(:written AS {type_}) AS text)")
        return lambda session: (
            session.connection().execute(statement, {"written": written}).scalar_one()
        )

    database = open_database(settings.database_url)
    assert await database.read(stored_as("json")) == written
    changed = await database.read(stored_as("jsonb"))
    await database.close()
    assert changed.startswith('{"a": 0.0, "b": 1.0, "c": 1000000')
