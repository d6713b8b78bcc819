"""`TicketActivity.revisions`: every version of an entry, page by page; private ones withheld."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.auth import Scope
from tests.support.service import JSON, Client, Service

REVISIONS = """
query Revisions($ticketId: ID!, $activityId: ID!, $first: Int, $after: String) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    revisions(first: $first, after: $after) {
      edges {
        cursor
        node { version changeType changedAt changedById message metadata isPrivate isWithheld }
      }
      nodes { version changeType changedAt changedById message metadata isPrivate isWithheld }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount
    }
  }
}
"""

LIST = """
query List($ticketId: ID!) {
  ticket(id: $ticketId) {
    activities(first: 100) {
      nodes { id version revisions(first: 5) { nodes { version message } totalCount } }
    }
  }
}
"""

DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""


async def ask(client: Client, entry: JSON, **arguments: Any) -> JSON:
    return await client.graphql(
        REVISIONS, ticketId=entry["ticketId"], activityId=entry["id"], **arguments
    )


async def revisions(client: Client, entry: JSON, **arguments: Any) -> JSON:
    """Read a page, and check that its parts tell the same."""
    document = await ask(client, entry, **arguments)
    assert "errors" not in document, document
    connection: JSON = document["data"]["ticketActivity"]["revisions"]
    edges, info = connection["edges"], connection["pageInfo"]
    assert connection["nodes"] == [edge["node"] for edge in edges]
    assert info["startCursor"] == (edges[0]["cursor"] if edges else None)
    assert info["endCursor"] == (edges[-1]["cursor"] if edges else None)
    return connection


def versions(connection: JSON) -> list[int]:
    return [node["version"] for node in connection["nodes"]]


def looks(connection: JSON) -> tuple[bool, bool]:
    """Whether there is more before and after."""
    info = connection["pageInfo"]
    return info["hasPreviousPage"], info["hasNextPage"]


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(
        await author.create_ticket(), message="1", metadata={"number": 1}
    )


async def edit(client: Client, entry: JSON, **fields: Any) -> None:
    response = await client.put(entry["ticketId"], entry["id"], fields)
    assert response.status_code == 200


async def test_every_version_tells_what_it_held_and_who_made_it(
    service: Service, author: Client, entry: JSON
) -> None:
    moderator = await service.client(*Scope)
    service.clock.advance(seconds=1)
    await edit(author, entry, message="2")
    service.clock.advance(seconds=1)
    await edit(moderator, entry, message=None, metadata={})
    service.clock.advance(seconds=1)
    await edit(author, entry, isPrivate=True)
    await edit(author, entry, isPrivate=True)

    connection = await revisions(author, entry)

    rows = [
        (1, "ADDED", "05", author, "1", {"number": 1}, False),
        (2, "UPDATED", "06", author, "2", {"number": 1}, False),
        (3, "UPDATED", "07", moderator, None, {}, False),
        (4, "UPDATED", "08", author, None, {}, True),
    ]
    assert connection["nodes"] == [
        {
            "version": version,
            "changeType": change_type,
            "changedAt": f"2026-11-23T15:07:{second}.514Z",
            "changedById": str(client.actor_id),
            "message": message,
            "metadata": metadata,
            "isPrivate": is_private,
            "isWithheld": False,
        }
        for version, change_type, second, client, message, metadata, is_private in rows
    ]
    assert connection["totalCount"] == 4
    assert looks(connection) == (False, False)


async def test_the_newest_revision_is_the_entry(author: Client, entry: JSON) -> None:
    await edit(author, entry, message="2", metadata={"number": 2})

    current = await author.find(entry["ticketId"], entry["id"])
    newest = (await revisions(author, entry))["nodes"][-1]

    assert current is not None
    kept = ("version", "message", "metadata", "isPrivate")
    assert [newest[name] for name in kept] == [current[name] for name in kept]
    assert newest["changedAt"] == current["updatedAt"]
    assert newest["changedById"] == current["updatedById"]


async def test_an_update_that_changes_nothing_leaves_no_revision(
    author: Client, entry: JSON
) -> None:
    await edit(author, entry, message="1", metadata={"number": 1}, isPrivate=False)

    assert versions(await revisions(author, entry)) == [1]


async def test_revisions_of_neighbours_stay_apart(author: Client, entry: JSON) -> None:
    other = await author.create_activity(entry["ticketId"], message="other")
    await edit(author, entry, message="2")
    await edit(author, other, message="other 2")

    assert [node["message"] for node in (await revisions(author, entry))["nodes"]] == ["1", "2"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_put_together_are_every_version(author: Client, entry: JSON, size: int) -> None:
    for number in range(2, 8):
        await edit(author, entry, message=str(number))
    found: list[int] = []
    cursor, goes_on = None, True
    while goes_on:
        read = await revisions(author, entry, first=size, after=cursor)
        assert looks(read)[0] is bool(found)
        assert read["totalCount"] == 7
        found += versions(read)
        cursor, goes_on = read["pageInfo"]["endCursor"], read["pageInfo"]["hasNextPage"]

    assert found == [1, 2, 3, 4, 5, 6, 7]


async def test_a_cursor_lasts_while_the_entry_changes(author: Client, entry: JSON) -> None:
    end = (await revisions(author, entry))["pageInfo"]["endCursor"]
    empty = await revisions(author, entry, after=end)
    assert (versions(empty), looks(empty)) == ([], (True, False))
    await edit(author, entry, message="2")

    read = await revisions(author, entry, after=end)

    assert (versions(read), looks(read)) == ([2], (True, False))


async def test_without_a_size_the_first_twenty_come(author: Client, entry: JSON) -> None:
    for number in range(2, 23):
        await edit(author, entry, message=str(number))

    read = await revisions(author, entry)

    assert versions(read) == list(range(1, 21))
    assert looks(read) == (False, True)
    assert looks(await revisions(author, entry, first=0)) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first": 101}, "first is 101; it must be 0 to 100."),
        ({"first": -1}, "first is -1; it must be 0 to 100."),
        ({"after": ""}, "after is not a cursor of this connection."),
        ({"after": "x"}, "after is not a cursor of this connection."),
        ({"after": "dmVyc2lvbiAtMQ=="}, "after is not a cursor of this connection."),
        ({"after": "dmVyc2lvbiA5OTk5OTk5OTk5"}, "after is not a cursor of this connection."),
    ],
    ids=str,
)
async def test_a_page_beyond_the_rules_is_refused(
    author: Client, entry: JSON, arguments: JSON, said: str
) -> None:
    document = await ask(author, entry, **arguments)

    [error] = document["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT"}
    assert error["message"] == said
    assert document["data"] == {"ticketActivity": None}


async def test_what_was_made_private_shows_its_past_to_who_sees_it_now(
    service: Service, author: Client, entry: JSON
) -> None:
    confidant = await service.client(Scope.READ, Scope.PRIVATE)
    blind = [await service.client(Scope.READ), await service.client(Scope.READ, Scope.MODERATE)]
    for client in blind:
        assert versions(await revisions(client, entry)) == [1]

    await edit(author, entry, message="hidden", isPrivate=True)

    for client in (author, confidant):
        assert versions(await revisions(client, entry)) == [1, 2]
    for client in blind:
        assert await ask(client, entry) == {"data": {"ticketActivity": None}}


@pytest.mark.parametrize("scopes", [[Scope.READ], [Scope.READ, Scope.WRITE, Scope.MODERATE]])
async def test_what_was_said_in_private_is_withheld_after_it_was_made_public(
    service: Service, author: Client, entry: JSON, scopes: list[Scope]
) -> None:
    viewer = await service.client(*scopes)
    service.clock.advance(seconds=1)
    await edit(author, entry, message="hidden", metadata={"secret": 1}, isPrivate=True)
    await edit(author, entry, message="hidden too")
    await edit(author, entry, message="shown", metadata={}, isPrivate=False)
    seen_by_author = (await revisions(author, entry))["nodes"]

    seen = await revisions(viewer, entry)

    withheld: JSON = {"message": None, "metadata": {}, "isWithheld": True}
    assert [node["message"] for node in seen_by_author] == ["1", "hidden", "hidden too", "shown"]
    assert not any(node["isWithheld"] for node in seen_by_author)
    assert seen["nodes"] == [
        node | (withheld if node["isPrivate"] else {}) for node in seen_by_author
    ]
    assert [node["isWithheld"] for node in seen["nodes"]] == [False, True, True, False]


async def test_what_was_said_in_private_is_shown_to_those_who_see_private_entries(
    service: Service, author: Client, entry: JSON
) -> None:
    confidant = await service.client(Scope.READ, Scope.PRIVATE)
    same_actor = await service.client(Scope.READ, actor_id=author.actor_id)
    await edit(author, entry, message="hidden", isPrivate=True)
    await edit(author, entry, isPrivate=False)

    read = [await revisions(client, entry) for client in (author, confidant, same_actor)]

    assert [node["message"] for node in read[0]["nodes"]] == ["1", "hidden", "hidden"]
    assert read[0] == read[1] == read[2]


async def test_of_a_deleted_entry_no_revision_is_seen(
    service: Service, author: Client, entry: JSON
) -> None:
    everything = await service.client(*Scope)
    await author.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])

    for client in (author, everything):
        assert await ask(client, entry) == {"data": {"ticketActivity": None}}


@contextmanager
def selects() -> Iterator[list[str]]:
    """Collect the reads that any engine executes meanwhile."""
    seen: list[str] = []

    def note(_1: Any, _2: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def given_entries(author: Client, count: int) -> str:
    """A ticket with that many entries of two versions each, beside the one that opens it."""
    ticket_id = await author.create_ticket()
    entries = await asyncio.gather(
        *(author.create_activity(ticket_id, message="1") for _ in range(count))
    )
    await asyncio.gather(*(edit(author, entry, message="2") for entry in entries))
    return ticket_id


async def test_a_page_reads_all_its_revisions_at_once(author: Client) -> None:
    few, many = await given_entries(author, 5), await given_entries(author, 50)
    counts = []
    for ticket_id, count in ((few, 5), (many, 50)):
        with selects() as seen:
            document = await author.graphql(LIST, ticketId=ticket_id)
        nodes = document["data"]["ticket"]["activities"]["nodes"]
        assert sorted(versions(node["revisions"]) for node in nodes) == [[1], *[[1, 2]] * count]
        counts.append(len(seen))

    assert counts[0] == counts[1]
    assert 0 < counts[0] <= 4  # the ticket, its newest change (for kept pages), the page, the rest
