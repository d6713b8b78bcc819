"""`Ticket.mergedInto` follows from the newest MERGED_INTO entry that stands."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy import update as update_rows

from app.auth import Scope
from app.settings import Settings
from app.store.migrate import alembic_config
from app.store.rows import ACTIVITY
from tests.support.service import CREATE_ACTIVITY, JSON, UPDATE, Client, Service, start
from tests.support.statements import is_found_by, scans, statements
from tests.test_migrations import on_database

MERGED_INTO = "query MergedInto($id: ID!) { ticket(id: $id) { mergedInto { id } } }"
ENTRIES = """
query Entries($id: ID!) {
  ticket(id: $id) {
    mergedInto { id }
    activities(first: 100, filter: {types: [MERGED_INTO]}) { nodes { id metadata } }
  }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
UNKNOWN = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"

SAID = "The metadata of a merged_into entry must name another ticket as ticketId."


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(*Scope)


@pytest.fixture
async def tickets(moderator: Client) -> list[str]:
    return [await moderator.create_ticket() for _ in range(4)]


async def merged_into(client: Client, ticket_id: str) -> str | None:
    document = await client.graphql(MERGED_INTO, id=ticket_id)
    target = document["data"]["ticket"]["mergedInto"]
    return target and str(target["id"])


async def merge(client: Client, ticket_id: str, target: str) -> JSON:
    metadata = {"ticketId": target}
    return await client.create_activity(ticket_id, activityType="MERGED_INTO", metadata=metadata)


async def update(client: Client, entry: JSON, **changes: Any) -> JSON:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    return await client.mutate(UPDATE, **ids, **changes)


async def delete(client: Client, entry: JSON) -> None:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    assert (await client.mutate(DELETE, **ids))["userErrors"] == []


@pytest.mark.parametrize("field", ["metadata", "metadataPatch"])
async def test_it_follows_an_edit_of_the_entry(
    moderator: Client, tickets: list[str], field: str
) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    payload = await update(moderator, entry, **{field: {"ticketId": tickets[2]}})

    assert payload["userErrors"] == []
    assert await merged_into(moderator, tickets[0]) == tickets[2]
    await delete(moderator, entry)
    assert await merged_into(moderator, tickets[0]) is None


async def test_it_follows_an_edit_by_put(moderator: Client, tickets: list[str]) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    response = await moderator.put(
        tickets[0], entry["id"], {"metadata": {"ticketId": tickets[2].upper()}}
    )

    assert response.status_code == 200
    assert await merged_into(moderator, tickets[0]) == tickets[2]


async def test_the_newest_entry_decides_and_the_one_before_it_once_it_is_deleted(
    moderator: Client, tickets: list[str]
) -> None:
    first = await merge(moderator, tickets[0], tickets[1])
    second = await merge(moderator, tickets[0], tickets[2])
    assert await merged_into(moderator, tickets[0]) == tickets[2]

    await update(moderator, first, metadata={"ticketId": tickets[3]})
    assert await merged_into(moderator, tickets[0]) == tickets[2], "an edit makes none newer"

    await delete(moderator, second)
    assert await merged_into(moderator, tickets[0]) == tickets[3]

    await delete(moderator, first)
    assert await merged_into(moderator, tickets[0]) is None


async def test_deleting_an_older_entry_changes_nothing(
    moderator: Client, tickets: list[str]
) -> None:
    first = await merge(moderator, tickets[0], tickets[1])
    await merge(moderator, tickets[0], tickets[1])

    await delete(moderator, first)

    assert await merged_into(moderator, tickets[0]) == tickets[1]


async def test_an_edit_of_the_message_leaves_it_alone(
    moderator: Client, tickets: list[str]
) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    await update(moderator, entry, message="see there", metadataPatch={"reason": "twice"})

    assert await merged_into(moderator, tickets[0]) == tickets[1]


@pytest.mark.parametrize("target", [None, "x", UNKNOWN, "itself", 1])
async def test_an_edit_needs_another_ticket(
    moderator: Client, tickets: list[str], target: object
) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])
    metadata = {"ticketId": tickets[0] if target == "itself" else target}

    payloads = [
        await update(moderator, entry, metadata=metadata),
        await update(moderator, entry, metadataPatch=metadata),
        await update(moderator, entry, metadata={}),
    ]
    response = await moderator.put(tickets[0], entry["id"], {"metadata": metadata})

    error = {
        "code": "INVALID_INPUT",
        "message": SAID,
        "path": ["input", "metadata"],
        "reasons": [],
    }
    for payload in payloads:
        assert (payload["ticketActivity"], payload["userErrors"]) == (None, [error])
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "INVALID_INPUT")
    assert (problem["detail"], problem["path"]) == (SAID, ["metadata"])
    assert await merged_into(moderator, tickets[0]) == tickets[1]
    assert len(await service_history(moderator, tickets[0])) == 2


async def service_history(client: Client, ticket_id: str) -> list[JSON]:
    query = """query Q($id: ID!) {
        ticketActivityChanges(ticketId: $id, first: 100) { nodes { changeType } } }"""
    document = await client.graphql(query, id=ticket_id)
    nodes: list[JSON] = document["data"]["ticketActivityChanges"]["nodes"]
    return nodes


# Entries that state facts of the ticket are public


@pytest.mark.parametrize("kind", ["MERGED_INTO", "MERGED_FROM"])
async def test_an_entry_that_states_a_fact_cannot_be_created_private(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    payload = await moderator.mutate(
        CREATE_ACTIVITY,
        ticketId=tickets[0],
        activityType=kind,
        metadata={"ticketId": tickets[1]},
        isPrivate=True,
    )

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "isPrivate"])
    assert error["message"] == (
        f"An entry of the type {kind.lower()} cannot be private: it states a fact of the ticket "
        "that everybody sees."
    )
    assert await merged_into(moderator, tickets[0]) is None


@pytest.mark.parametrize("kind", ["TICKET_CREATED", "MERGED_INTO", "MERGED_FROM"])
async def test_an_entry_that_states_a_fact_cannot_be_made_private(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    entry = await entry_of(moderator, tickets, kind)

    payload = await update(moderator, entry, message="changed", isPrivate=True)
    response = await moderator.put(
        entry["ticketId"], entry["id"], {"message": "changed", "isPrivate": True}
    )

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "isPrivate"])
    assert (response.status_code, response.json()["path"]) == (422, ["isPrivate"])
    assert response.json()["detail"] == error["message"]
    assert await moderator.find(entry["ticketId"], entry["id"]) == entry


@pytest.mark.parametrize("kind", ["TICKET_CREATED", "MERGED_INTO", "MERGED_FROM"])
async def test_a_client_may_put_back_what_it_read_of_such_an_entry(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    entry = await entry_of(moderator, tickets, kind)
    read = await moderator.get(entry["ticketId"], entry["id"])

    response = await moderator.put(entry["ticketId"], entry["id"], read.json())

    assert response.status_code == 200
    assert response.headers["ETag"] == read.headers["ETag"]


async def entry_of(client: Client, tickets: list[str], kind: str) -> JSON:
    if kind == "TICKET_CREATED":
        document = await client.graphql(
            "query Q($id: ID!) { ticket(id: $id) { activities(first: 1) { nodes { id } } } }",
            id=tickets[0],
        )
        [node] = document["data"]["ticket"]["activities"]["nodes"]
        found = await client.find(tickets[0], node["id"])
        assert found
        return found
    metadata = {"ticketId": tickets[1]}
    return await client.create_activity(tickets[0], activityType=kind, metadata=metadata)


# Whatever happens, in whichever batches


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Steps of (what, which entry, which target); steps of one group are sent at once."""
    step = st.tuples(
        st.sampled_from(["create", "create", "edit", "delete"]),
        st.integers(0, 5),
        st.integers(1, 3),
    )
    return draw(st.lists(step, min_size=1, max_size=12))


@given(script=scripts(), group=st.sampled_from([1, 3, 12]))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
async def test_it_is_always_what_the_newest_standing_entry_names(
    blank: Settings, script: list[tuple[str, int, int]], group: int
) -> None:
    async with start(blank) as service:
        moderator = await service.client(*Scope)
        tickets = [await moderator.create_ticket() for _ in range(4)]
        created: list[JSON] = [await merge(moderator, tickets[0], tickets[1])]

        async def carry_out(what: str, number: int, target: int) -> None:
            entry = created[number % len(created)]
            ids = {"ticketId": tickets[0], "activityId": entry["id"]}
            if what == "create":
                created.append(await merge(moderator, tickets[0], tickets[target]))
            elif what == "edit":
                await moderator.mutate(UPDATE, **ids, metadata={"ticketId": tickets[target]})
            else:
                await moderator.mutate(DELETE, **ids)

        for begin in range(0, len(script), group):
            await asyncio.gather(*(carry_out(*step) for step in script[begin : begin + group]))

        document = await moderator.graphql(ENTRIES, id=tickets[0])
        found = document["data"]["ticket"]
        history = [id_ for _, id_, version, _ in await service.history(tickets[0]) if version == 1]
        standing = sorted(found["activities"]["nodes"], key=lambda node: history.index(node["id"]))
        expected = {"id": standing[-1]["metadata"]["ticketId"]} if standing else None
        assert found["mergedInto"] == expected


# Databases of earlier releases


async def test_a_private_entry_of_an_earlier_release_decides_nothing(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    hidden = await merge(moderator, tickets[0], tickets[1])
    shown = await merge(moderator, tickets[0], tickets[2])
    await service.execute(
        "UPDATE ticket_activity SET is_private = true WHERE id = :id", id=UUID(hidden["id"])
    )

    await delete(moderator, shown)

    assert await merged_into(moderator, tickets[0]) is None


async def test_an_entry_that_names_no_ticket_any_more_decides_nothing(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    stale = await merge(moderator, tickets[0], tickets[1])
    newer = await merge(moderator, tickets[0], tickets[2])
    names_none = update_rows(ACTIVITY).values(metadata={"ticketId": UNKNOWN})
    await service.execute(names_none.where(ACTIVITY.c.id == UUID(stale["id"])))

    await delete(moderator, newer)

    assert await merged_into(moderator, tickets[0]) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE ticket_activity SET is_private = true WHERE id = :newer", 1),
        ("UPDATE ticket_activity SET is_private = true WHERE activity_type = 'merged_into'", None),
        ("UPDATE ticket_activity SET metadata = '{}' WHERE id = :newer", 1),
        ("UPDATE ticket_activity SET deleted_at = updated_at WHERE id = :newer", 1),
        ("UPDATE ticket SET merged_into_id = NULL WHERE id != :newer", 2),
    ],
)
async def test_the_migration_mends_what_earlier_releases_left(
    settings: Settings, change: str, expected: int | None
) -> None:
    async with start(settings) as service:
        moderator = await service.client(*Scope)
        tickets = [await moderator.create_ticket() for _ in range(3)]
        await merge(moderator, tickets[0], tickets[1])
        newer = await merge(moderator, tickets[0], tickets[2])
        await moderator.create_activity(tickets[1], message="so that the clock counts")

    def migrate_again(connection: Connection) -> None:
        config = alembic_config(connection)
        command.downgrade(config, "0003")
        parameters = {"newer": UUID(newer["id"])} if ":newer" in change else {}
        connection.execute(text(change).bindparams(**parameters))
        command.upgrade(config, "head")

    await on_database(settings.database_url, migrate_again)

    async with start(settings) as service:
        reader = await service.client(*Scope)
        target = await merged_into(reader, tickets[0])
    assert target == (tickets[expected] if expected else None)


async def test_the_merges_of_a_ticket_are_found_without_reading_its_timeline(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    with statements() as executed:
        await update(moderator, entry, metadata={"ticketId": tickets[2]})

    [(statement, parameters)] = [one for one in executed if "'merged_into'" in one[0]]
    plan = await service.explain(statement, parameters)
    assert is_found_by(plan, "ix_ticket_activity_merge"), plan
    assert scans(plan) == []
