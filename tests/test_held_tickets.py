"""A transaction that keeps a ticket locked makes the writes to it busy, and no others for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.util.concurrency import await_only
from sqlmodel import Session

from app.auth import Scope
from app.settings import Settings
from tests.support.service import Client, start

pytestmark = pytest.mark.postgresql

UPSERT_ACTORS = """
mutation Upsert($input: UpsertActorsInput!) {
  upsertActors(input: $input) { actors { name } userErrors { code } }
}
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"database_lock_seconds": 0.5})


@asynccontextmanager
async def held(settings: Settings, *ticket_ids: str) -> AsyncIterator[None]:
    """Hold tickets as somebody does who went away in the midst of a transaction."""
    connection = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))
    try:
        async with connection.transaction():
            for ticket_id in ticket_ids:
                await connection.execute("SELECT FROM ticket WHERE id = $1 FOR UPDATE", ticket_id)
            yield
    finally:
        await connection.close()


async def put(client: Client, entry: Any) -> str:
    response = await client.put(entry["ticketId"], entry["id"], {"message": "after"})
    return str(response.json().get("code", "ok"))


async def entries(client: Client, count: int) -> list[Any]:
    return [
        await client.create_activity(await client.create_ticket(), message="before")
        for _ in range(count)
    ]


async def test_only_writes_to_a_ticket_that_is_held_are_busy(settings: Settings) -> None:
    async with start(settings) as service:
        author = await service.client()
        first, second, *others = await entries(author, 6)
        async with held(settings, first["ticketId"], second["ticketId"]):
            waiting = [asyncio.ensure_future(put(author, entry)) for entry in (first, *others)]
            assert await asyncio.gather(*waiting) == ["BUSY", "ok", "ok", "ok", "ok"]

            # It is known now, so others do not wait for it even once.
            waiting = [asyncio.ensure_future(put(author, entry)) for entry in (first, *others)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert waiting[0] not in done
            assert await asyncio.gather(*waiting) == ["BUSY", "ok", "ok", "ok", "ok"]

            both = await asyncio.gather(*(put(author, entry) for entry in (first, second)))
            assert both == ["BUSY", "BUSY"]
        assert [await put(author, entry) for entry in (first, second)] == ["ok", "ok"]
        found = [await author.find(entry["ticketId"], entry["id"]) for entry in (first, *others)]

    assert [entry and entry["version"] for entry in found] == [2] * 5


async def test_a_ticket_that_is_free_again_does_not_share_the_fate_of_one_that_is_held(
    settings: Settings,
) -> None:
    async with start(settings) as service:
        author = await service.client()
        first, second = await entries(author, 2)
        async with held(settings, first["ticketId"]):
            async with held(settings, second["ticketId"]):
                assert await put(author, first) == await put(author, second) == "BUSY"

            both = await asyncio.gather(*(put(author, entry) for entry in (first, second)))

        assert both == ["BUSY", "ok"]


async def test_a_token_that_is_held_makes_no_write_wait(settings: Settings) -> None:
    async with start(settings) as service:
        author = await service.client()
        connection = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))
        async with connection.transaction():
            await connection.execute("SELECT FROM access_token FOR UPDATE")
            [entry] = await entries(author, 1)

            assert await put(author, entry) == "ok"
        await connection.close()


async def test_an_actor_that_is_held_makes_no_entry_busy(settings: Settings) -> None:
    async with start(settings) as service:
        author = await service.client(*Scope)
        [entry] = await entries(author, 1)
        await author.mutate(UPSERT_ACTORS, actors=[{"id": str(author.actor_id), "name": "Ada"}])
        connection = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))
        async with connection.transaction():
            await connection.execute("SELECT FROM actor FOR UPDATE")
            names = [{"id": str(author.actor_id), "name": "Grace"}]
            named, code = await asyncio.gather(
                author.graphql(UPSERT_ACTORS, input={"actors": names}), put(author, entry)
            )
        await connection.close()

        assert code == "ok"
        assert [error["extensions"]["code"] for error in named["errors"]] == ["BUSY"]


async def test_a_process_that_stops_while_it_holds_tickets_loses_them(settings: Settings) -> None:
    async with start(settings) as slow, start(settings) as other:
        author = await slow.client()
        [entry] = await entries(author, 1)
        ticket_id = UUID(entry["ticketId"])
        has_lock = asyncio.Event()

        def stop(session: Session) -> None:
            statement = text("SELECT FROM ticket WHERE id = :id FOR UPDATE")
            session.connection().execute(statement, {"id": ticket_id})
            has_lock.set()
            await_only(asyncio.Event().wait())

        stopped = asyncio.ensure_future(slow.database.write(stop))
        await has_lock.wait()
        there = Client(other.http, author.actor_id, author.token)

        async with asyncio.timeout(10):
            while await put(there, entry) == "BUSY":
                pass
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
