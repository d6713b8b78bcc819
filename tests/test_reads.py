"""Reading by id, and what all reads share."""

import asyncio
import base64

import pytest

from tests.support.service import Client, Service


@pytest.fixture
async def author(service: Service) -> Client:
    return await service.client()


@pytest.fixture
async def ticket_id(author: Client) -> str:
    return await author.create_ticket()


async def test_nodes_come_in_their_order_with_null_for_what_is_not_there(
    author: Client, ticket_id: str
) -> None:
    entry = await author.create_activity(ticket_id)
    query = "query Q($ids: [ID!]!) { nodes(ids: $ids) { __typename id } viewer { actorId name } }"
    wanted = [entry["id"], "x", ticket_id, str(author.actor_id), entry["id"]]

    data = (await author.graphql(query, ids=wanted))["data"]

    found = [node and (node["__typename"], node["id"]) for node in data["nodes"]]
    of_entry = ("TicketActivity", entry["id"])
    assert found == [of_entry, None, ("Ticket", ticket_id), None, of_entry]
    assert data["viewer"] == {"actorId": str(author.actor_id), "name": "test"}


async def test_at_most_a_hundred_nodes_are_found_at_once(author: Client, ticket_id: str) -> None:
    query = "query Q($ids: [ID!]!) { nodes(ids: $ids) { id } }"

    [error] = (await author.graphql(query, ids=[ticket_id] * 101))["errors"]

    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert "the limit is 100" in error["message"]


async def test_an_entry_is_found_on_its_own_ticket_only(author: Client, ticket_id: str) -> None:
    entry = await author.create_activity(ticket_id)

    assert await author.find(await author.create_ticket(), entry["id"]) is None
    assert await author.find(ticket_id, entry["id"]) == entry


async def test_a_query_reads_one_state(service: Service, author: Client, ticket_id: str) -> None:
    query = """query Q($id: UUID!) { ticket(id: $id) { changesCursor
      activities(first: 100) { nodes { version } totalCount } } }"""

    async def write() -> None:
        for number in range(30):
            await author.create_activity(ticket_id, message=str(number))

    writing = asyncio.create_task(write())
    for _ in range(30):
        ticket = (await author.graphql(query, id=ticket_id))["data"]["ticket"]
        versions = sum(node["version"] for node in ticket["activities"]["nodes"])
        seq = int(base64.urlsafe_b64decode(ticket["changesCursor"]).split()[-1])
        # Every change made one version of one entry, and all are on the page.
        assert versions == seq
        assert len(ticket["activities"]["nodes"]) == ticket["activities"]["totalCount"]
    await writing
