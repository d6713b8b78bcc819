"""Commands of an operator that end in the midst of a transaction of PostgreSQL.

Nothing is half done then. What was killed with its process ends when it is run again; what lost
only its process of PostgreSQL goes on by itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.activity.values import utc_now
from app.cli import main
from app.settings import Settings
from tests.support.process import ROOT, environment
from tests.support.service import Clock, start

pytestmark = pytest.mark.postgresql

COMMAND = str(ROOT / ".venv/bin/ticket-activity")
RETAIN = "retain --older-than 730d --apply"
ERASE = "erase-actor {actor} --apply"
REDACT = "erase-actor {actor} --redact --apply"
HOLDS = {
    RETAIN: "SELECT FROM ticket_activity FOR UPDATE",  # after versions were deleted
    ERASE: "SELECT FROM ticket_activity_change FOR UPDATE",  # after entries were changed
    REDACT: "LOCK TABLE idempotency_key IN ROW EXCLUSIVE MODE",  # after entries were redacted
}
"""What keeps a command from going on in the midst of its transaction."""

TEXTS = """
SELECT 0, ticket_id, version::bigint, message FROM ticket_activity
UNION ALL SELECT 1, ticket_id, seq, message FROM ticket_activity_change ORDER BY 1, 2, 3, 4
"""
NAMES = """
SELECT actor_id FROM ticket_activity UNION ALL SELECT updated_by_id FROM ticket_activity
UNION ALL SELECT changed_by_id FROM ticket_activity_change
"""
SEQS = """
SELECT last_seq, forgotten_seq, array(
    SELECT seq FROM ticket_activity_change WHERE ticket_id = ticket.id ORDER BY seq
) AS seqs FROM ticket
"""
WAITING = """
SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
async def actor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Somebody who wrote on two tickets, years ago and yesterday."""
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC))
    async with start(settings, clock) as service:
        author = await service.client()
        tickets = [await author.create_ticket(message="opened") for _ in range(2)]
        entries = [await author.create_activity(id_, message="old") for id_ in tickets]
        clock.now = utc_now() - timedelta(days=1)
        for entry in entries:
            await author.put(entry["ticketId"], entry["id"], {"message": "new"})
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", settings.database_url)
    return str(author.actor_id)


@asynccontextmanager
async def held(url: str, command: str) -> AsyncIterator[Any]:
    """Hold what the command waits for, and yield a connection that looks on."""
    holding, looking = [await asyncpg.connect(url.replace("+asyncpg", "", 1)) for _ in range(2)]
    async with holding.transaction():
        await holding.execute(HOLDS[command])
        yield looking
    await holding.close()
    await looking.close()


async def waiting(connection: Any) -> int:
    """Return the process of PostgreSQL that waits, once there is one."""
    async with asyncio.timeout(30):
        while (pid := await connection.fetchval(WAITING)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return int(pid)


async def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    found = [tuple(row) for row in await connection.fetch(statement)]
    await connection.close()
    return found


async def require_done(url: str, command: str, actor: str) -> None:
    for last, forgotten, seqs in await rows(url, SEQS):
        assert seqs == [*range(forgotten + 1, last + 1)]
    names = {str(name) for (name,) in await rows(url, NAMES) if name}
    messages = [message for *_, message in await rows(url, TEXTS)]
    if command == RETAIN:
        assert (names, messages) == ({actor}, ["new"] * 4)
    else:
        assert actor not in names
        assert len(names) == 1
        is_redacted = set(messages) == {None}
        assert is_redacted is (command == REDACT)


@pytest.mark.parametrize("command", HOLDS)
async def test_a_command_that_was_killed_leaves_nothing_half_done_and_ends_the_next_time(
    settings: Settings, actor: str, command: str
) -> None:
    url = settings.database_url
    before = await rows(url, TEXTS)
    words = command.format(actor=actor).split()
    async with held(url, command) as connection:
        process = await asyncio.create_subprocess_exec(COMMAND, *words, env=environment(url))
        await waiting(connection)
        process.kill()
        await process.wait()

    assert await rows(url, TEXTS) == before
    assert len(set(await rows(url, NAMES))) == 1
    assert await asyncio.to_thread(main, words) == 0
    await require_done(url, command, actor)


@pytest.mark.parametrize("command", HOLDS)
async def test_a_command_whose_process_of_postgresql_ended_does_it_again(
    settings: Settings, actor: str, command: str
) -> None:
    url = settings.database_url
    words = command.format(actor=actor).split()
    async with held(url, command) as connection:
        running = asyncio.ensure_future(asyncio.to_thread(main, words))
        pid = await waiting(connection)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)

    assert await running == 0
    await require_done(url, command, actor)
