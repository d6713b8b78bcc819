"""`ticket-activity erase-actor`: name and id are gone everywhere, the messages if that is asked."""

import asyncio
import re
from functools import partial
from uuid import UUID

import pytest
from sqlmodel import Session

from app.auth import Scope
from app.cli import main
from app.store.erasure import begin_erasure, count_traces
from tests.support.live import feed, follow, receive, web_socket
from tests.support.service import JSON, Client, Service

UPSERT = """
mutation Upsert($input: UpsertActorsInput!) {
  upsertActors(input: $input) { userErrors { code } }
}
"""
LOOK = """
query Look($id: ID!) {
  ticket(id: $id) {
    activities(first: 100) {
      nodes {
        id message actorId updatedById actor { name } redaction { reason redactedById }
        revisions { nodes { message changedById recordedById } }
      }
    }
  }
}
"""
SECRET = "swordfish-4711"


@pytest.fixture(autouse=True)
def _database(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", service.settings.database_url)


@pytest.fixture
async def person(service: Service) -> Client:
    person = await service.client()
    moderator = await service.client(*Scope)
    actors = [{"id": str(person.actor_id), "name": "Ada Lovelace"}]
    assert (await moderator.mutate(UPSERT, actors=actors))["userErrors"] == []
    return person


async def run(*arguments: str) -> int:
    """Run a command beside the service, as another process would."""
    return await asyncio.to_thread(main, arguments)


async def traces(service: Service, actor_id: UUID) -> dict[str, int]:
    def count(session: Session) -> dict[str, int]:
        return count_traces(session, actor_id)

    return await service.database.read(count)


async def look(client: Client, ticket_id: str) -> list[JSON]:
    document = await client.graphql(LOOK, id=ticket_id)
    assert "errors" not in document, document
    nodes: list[JSON] = document["data"]["ticket"]["activities"]["nodes"]
    return nodes


async def write(person: Client, other: Client) -> str:
    """A ticket and an entry of the person, and one of somebody else that they have changed."""
    ticket_id = await person.create_ticket(message=SECRET)
    entry = await person.create_activity(ticket_id, message=SECRET)
    await person.put(ticket_id, entry["id"], {"message": f"{SECRET} again"})
    imported = await other.create_activity(
        ticket_id, message="kept", actorId=str(other.actor_id), createdAt="2020-01-01T00:00:00Z"
    )
    await other.put(ticket_id, imported["id"], {"message": "kept, too"})
    return ticket_id


async def test_without_apply_it_only_says_what_it_would_change(
    service: Service, person: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await service.client(*Scope)
    ticket_id = await write(person, other)
    before = await look(other, ticket_id)

    assert await run("erase-actor", str(person.actor_id)) == 0

    assert capsys.readouterr().out.splitlines() == [
        "2 entries",
        "3 versions in the history",
        "1 tokens",
        "0 idempotency keys",
        "1 names",
        "Nothing is changed. Run it with --apply to erase the actor.",
    ]
    assert await look(other, ticket_id) == before


async def test_the_id_is_replaced_everywhere_and_the_name_is_gone(
    service: Service, person: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await service.client(*Scope)
    ticket_id = await write(person, other)
    key = {"Idempotency-Key": "one"}
    # The process that serves has the page in memory now.
    await person.put(ticket_id, (await look(other, ticket_id))[-1]["id"], {}, **key)

    assert await run("erase-actor", str(person.actor_id), "--apply") == 0

    new_id = re.findall(r"Erased: (\S+) takes", capsys.readouterr().out)[0]
    assert set((await traces(service, person.actor_id)).values()) == {0}
    found = await traces(service, UUID(new_id))
    assert found == {
        "entries": 2,
        "versions in the history": 3,
        "tokens": 1,
        "idempotency keys": 0,
        "names": 0,
    }
    service.clock.advance(seconds=6)  # for as long a token that was revoked may be believed
    assert (await person.get(ticket_id, new_id)).status_code == 401
    nodes = await look(other, ticket_id)
    mine = [node for node in nodes if node["actorId"] == new_id]
    assert [(node["actor"] or {}).get("name") for node in mine] == [None, None]
    assert {node["message"] for node in mine} == {SECRET, f"{SECRET} again"}
    told = str(nodes) + str(await feed(other, ticket_id))
    assert str(person.actor_id) not in told


async def test_changes_kept_for_subscribers_name_the_new_id(
    service: Service, person: Client, origin: str
) -> None:
    other = await service.client(*Scope)
    ticket_id = await person.create_ticket()
    async with web_socket(origin, other.token) as ws:
        begun = await follow(ws, ticketId=ticket_id)
        await person.create_activity(ticket_id)
        await receive(ws)  # a process keeps the newest changes while somebody follows

        assert await run("erase-actor", str(person.actor_id), "--apply") == 0
        await other.create_activity(ticket_id)
        await receive(ws)

        await follow(ws, "2", ticketId=ticket_id, after=begun)
        change = await receive(ws)
    assert change["payload"]["data"]["ticketActivityChanges"]["change"]["activityId"]
    assert str(person.actor_id) not in str(change)


async def test_messages_are_redacted_if_that_is_asked(service: Service, person: Client) -> None:
    other = await service.client(*Scope)
    tickets = [await write(person, other) for _ in range(2)]

    assert await run("erase-actor", str(person.actor_id), "--redact-messages", "--apply") == 0

    for ticket_id in tickets:
        nodes = await look(other, ticket_id)
        assert SECRET not in str(nodes)
        kept = [node for node in nodes if node["actorId"] == str(other.actor_id)]
        assert [node["message"] for node in kept] == ["kept, too"]
        redacted = [node["redaction"] for node in nodes if node["redaction"]]
        assert redacted == [{"reason": "Its author was erased.", "redactedById": None}] * 2
        seqs = [seq for seq, *_ in await service.history(ticket_id)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_an_erasure_that_was_stopped_goes_on_with_the_same_id(
    service: Service, person: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await service.client(*Scope)
    await write(person, other)
    begin = partial(begin_erasure, actor_id=person.actor_id, now=service.clock())
    new_id = await service.database.write(begin)  # and then its process was killed

    assert await run("erase-actor", str(person.actor_id), "--apply") == 0

    assert f"Erased: {new_id} takes" in capsys.readouterr().out
    assert set((await traces(service, person.actor_id)).values()) == {0}
    assert (await traces(service, new_id))["entries"] == 2


async def test_an_actor_who_was_never_there_leaves_everything_as_it_is(
    service: Service, person: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await service.client(*Scope)
    ticket_id = await write(person, other)
    before = await look(other, ticket_id)

    assert await run("erase-actor", "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e", "--apply") == 0

    assert "0 entries" in capsys.readouterr().out
    assert await look(other, ticket_id) == before
