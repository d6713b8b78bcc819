"""Two processes on one database decide as one would: of two that race, one wins and both know."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from operator import itemgetter
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.auth import Scope
from app.cli import main
from app.settings import Settings
from tests.support.live import feed
from tests.support.postgresql import until_waiting
from tests.support.service import (
    CREATE_ACTIVITY,
    CREATE_TICKET,
    MERGE,
    UPDATE,
    Client,
    Clock,
    start,
)

UPSERT_ACTORS = """
mutation Name($input: UpsertActorsInput!) {
  upsertActors(input: $input) { userErrors { code } }
}
"""


@pytest.fixture
async def clients(settings: Settings) -> AsyncIterator[list[Client]]:
    """One actor with one token, as a client of each process."""
    async with start(settings) as one, start(settings) as other:
        here = await one.client(*Scope)
        yield [here, Client(other.http, here.actor_id, here.token)]


def code_of(payload: Any) -> str:
    return payload["userErrors"][0]["code"] if payload["userErrors"] else "ok"


async def test_of_updates_from_one_version_one_succeeds(clients: list[Client]) -> None:
    here = clients[0]
    entry = await here.create_activity(await here.create_ticket(), message="0")
    for version in range(1, 9):
        payloads = await asyncio.gather(
            *(
                client.mutate(
                    UPDATE,
                    ticketId=entry["ticketId"],
                    activityId=entry["id"],
                    message=f"{version} {number}",
                    expectedVersion=version,
                )
                for number, client in enumerate(clients * 2)
            )
        )
        codes = Counter(map(code_of, payloads))
        assert codes == {"ok": 1, "VERSION_CONFLICT": 3}
        [written] = [p["ticketActivity"]["message"] for p in payloads if not p["userErrors"]]
        found = await clients[1].find(entry["ticketId"], entry["id"])
        assert found
        assert (found["version"], found["message"]) == (version + 1, written)


async def test_of_creations_under_one_id_one_succeeds_unless_they_are_the_same(
    clients: list[Client],
) -> None:
    here = clients[0]
    ticket_id = await here.create_ticket()
    for _ in range(6):
        same, contested = str(uuid4()), str(uuid4())

        def create(client: Client, id_: str, message: str) -> Any:
            return client.mutate(
                CREATE_ACTIVITY,
                ticketId=ticket_id,
                activityType="COMMENT",
                id=id_,
                message=message,
            )

        payloads = await asyncio.gather(
            *(create(client, same, "same") for client in clients * 2),
            *(create(client, contested, f"{n}") for n, client in enumerate(clients * 2)),
            *(client.mutate(CREATE_TICKET, id=str(contested)) for client in clients),
        )
        assert [code_of(payload) for payload in payloads[:4]] == ["ok"] * 4
        assert Counter(map(code_of, payloads[4:8])) in (
            {"ok": 1, "ID_TAKEN": 3},
            {"ID_TAKEN": 4},
        )


async def test_a_ticket_that_both_create_at_once_is_one_ticket(clients: list[Client]) -> None:
    for _ in range(12):
        id_ = str(uuid4())
        payloads = await asyncio.gather(*(c.mutate(CREATE_TICKET, id=id_) for c in clients))
        assert [code_of(payload) for payload in payloads] == ["ok", "ok"]


async def test_of_merges_in_both_directions_one_succeeds(clients: list[Client]) -> None:
    here = clients[0]
    for _ in range(6):
        first, second = await here.create_ticket(), await here.create_ticket()
        payloads = await asyncio.gather(
            clients[0].mutate(MERGE, sourceId=first, targetId=second),
            clients[1].mutate(MERGE, sourceId=second, targetId=first),
        )
        assert Counter(code_of(payload) == "ok" for payload in payloads) == {True: 1, False: 1}, (
            payloads
        )


async def test_the_times_of_a_ticket_do_not_go_back_where_the_clocks_differ(
    settings: Settings,
) -> None:
    ahead = Clock()
    behind = Clock(ahead.now - timedelta(hours=1))
    async with start(settings, ahead) as one, start(settings, behind) as other:
        here = await one.client(*Scope)
        there = Client(other.http, here.actor_id, here.token)
        entry = await here.create_activity(await here.create_ticket(), message="0")
        place = entry["ticketId"], entry["id"]
        key = {"Idempotency-Key": '"once"'}

        first = await here.put(*place, {"message": "1"}, **key)
        again = await there.put(*place, {"message": "1"}, **key)
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        found = [await there.find(*place)]
        for number, client in enumerate([there, here, there], start=3):
            await client.put(*place, {"message": str(number)})
            found.append(await here.find(*place))

        states = [(state["version"], state["updatedAt"]) for state in found if state]
        assert [version for version, _ in states] == [2, 3, 4, 5]
        assert states == sorted(states, key=itemgetter(1))
        told = (await feed(there, entry["ticketId"]))["nodes"]
        assert [change["ticketActivity"]["version"] for change in told[-4:]] == [2, 3, 4, 5]


@pytest.mark.postgresql
async def test_processes_that_name_actors_wait_for_each_other_in_one_order(
    clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    """Else two of them wait for each other, until PostgreSQL ends one after a second."""
    actors = [str(uuid4()) for _ in range(8)]
    for number in range(4):
        payloads = await asyncio.gather(
            *(
                client.mutate(UPSERT_ACTORS, actors=[{"id": id_, "name": f"{number}"}])
                for client, ids in zip(clients, (actors, reversed(actors)), strict=True)
                for id_ in ids
            )
        )
        assert {code_of(payload) for payload in payloads} == {"ok"}

    assert "is repeated" not in caplog.text


@pytest.mark.postgresql
async def test_an_erasure_holds_nothing_while_it_waits_for_who_names_actors(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", settings.database_url)
    other = await asyncpg.connect(settings.database_url.replace("+asyncpg", "", 1))

    async with start(settings) as service:
        author = await service.client(*Scope)
        named = {"id": str(author.actor_id), "name": "Ada"}
        await author.mutate(UPSERT_ACTORS, actors=[named])
        erase = ["erase-actor", named["id"], "--apply"]
        async with other.transaction():
            await other.execute("SELECT FROM actor FOR UPDATE")
            naming = asyncio.create_task(
                author.mutate(UPSERT_ACTORS, actors=[named | {"name": "Grace"}])
            )
            await until_waiting(other)
            erasing = asyncio.create_task(asyncio.to_thread(main, erase))
            await until_waiting(other, 2)
            free = await other.fetch("SELECT id FROM access_token FOR UPDATE SKIP LOCKED")
        await naming
        assert await erasing == 0
        assert len(free) == 1
    await other.close()
