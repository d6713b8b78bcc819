"""Reading by id, and what all reads share."""

import asyncio
from collections import Counter

import pytest

from tests.support.cursors import seq_of
from tests.support.service import Client, Service
from tests.support.statements import statements

GOOD_ID = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"


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


async def test_what_many_entries_ask_for_is_read_once(author: Client, ticket_id: str) -> None:
    for _ in range(5):
        await author.create_activity(ticket_id)
    query = """query Q($id: ID!) { ticket(id: $id) {
      activities(first: 100, filter: {types: COMMENT}) { nodes {
        ticket { id activities(last: 2) { totalCount nodes { id } } } } } } }"""

    with statements() as executed:
        document = await author.graphql(query, id=ticket_id)

    [first, *others] = document["data"]["ticket"]["activities"]["nodes"]
    assert others == [first] * 4
    assert (first["ticket"]["id"], first["ticket"]["activities"]["totalCount"]) == (ticket_id, 6)
    reads = Counter(statement for statement, _ in executed if "FROM ticket_activity" in statement)
    assert len(reads) == 3, reads
    assert max(reads.values()) == 1, reads


async def test_a_read_that_is_begun_again_is_begun_again_for_all_who_ask_for_it(
    author: Client, ticket_id: str
) -> None:
    for number in range(3):
        await author.create_activity(ticket_id, message=f"zeppelin {number}")
    query = """query Q($id: ID!) { ticket(id: $id) { activities {
      nodes { ticket { activities(filter: {text: "zeppelin"}) { nodes { id } } } } } } }"""

    # A text search fails on the connection that reads share, and goes on one of its own.
    document = await author.graphql(query, id=ticket_id)

    [first, *others] = document["data"]["ticket"]["activities"]["nodes"]
    assert others == [first] * 3
    assert len(first["ticket"]["activities"]["nodes"]) == 3


async def test_a_query_reads_one_state(service: Service, author: Client, ticket_id: str) -> None:
    query = """query Q($id: ID!) { ticket(id: $id) { changesCursor
      activities(first: 100) { nodes { version } totalCount } } }"""

    async def write() -> None:
        for number in range(30):
            await author.create_activity(ticket_id, message=str(number))

    writing = asyncio.create_task(write())
    for _ in range(30):
        ticket = (await author.graphql(query, id=ticket_id))["data"]["ticket"]
        versions = sum(node["version"] for node in ticket["activities"]["nodes"])
        seq = seq_of(service, ticket_id, ticket["changesCursor"])
        # Every change made one version of one entry, and all are on the page.
        assert versions == seq
        assert len(ticket["activities"]["nodes"]) == ticket["activities"]["totalCount"]
    await writing


# Ids

BY_ID = """
query Q($id: ID!) {
  node(id: $id) { id ... on Ticket { createdAt } }
  ticket(id: $id) { id createdAt }
  ticketActivityChanges(ticketId: $id) { nodes { activityId ticketActivity { id ticketId } } }
}
"""


async def test_one_variable_finds_a_ticket_as_a_node_and_by_its_own_fields(
    author: Client, ticket_id: str
) -> None:
    data = (await author.graphql(BY_ID, id=ticket_id.upper()))["data"]

    [change] = data["ticketActivityChanges"]["nodes"]
    assert data["node"] == data["ticket"]
    assert data["ticket"]["id"] == change["ticketActivity"]["ticketId"] == ticket_id
    assert change["activityId"] == change["ticketActivity"]["id"]


@pytest.mark.parametrize(
    ("field", "argument"),
    [
        ("ticket(id: $id) { id }", "id"),
        (f'ticketActivity(ticketId: $id, activityId: "{GOOD_ID}") {{ id }}', "ticketId"),
        (f'ticketActivity(ticketId: "{GOOD_ID}", activityId: $id) {{ id }}', "activityId"),
        ("ticketActivityChanges(ticketId: $id) { nodes { cursor } }", "ticketId"),
    ],
)
@pytest.mark.parametrize("id_", ["x", "", 7, GOOD_ID.replace("-", ""), f"{{{GOOD_ID}}}"])
async def test_an_id_that_is_malformed_is_refused_by_the_name_of_its_argument(
    author: Client, field: str, argument: str, id_: object
) -> None:
    document = await author.graphql(f"query Q($id: ID!) {{ {field} }}", id=id_)

    [error] = document["errors"]
    assert error["message"] == (
        f"{argument} must be a UUID in canonical form, such as {GOOD_ID}; got {str(id_)!r}."
    )
    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert error["path"] == [field.partition("(")[0]]


async def test_a_node_of_a_malformed_id_is_null(author: Client) -> None:
    data = (await author.graphql('{ node(id: "x") { id } nodes(ids: ["x", "y"]) { id } }'))["data"]

    assert data == {"node": None, "nodes": [None, None]}
