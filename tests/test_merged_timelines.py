"""`Ticket.activities(includeMerged: true)`: one timeline over all tickets that were merged in."""

from typing import Any
from uuid import UUID

import pytest

from app.auth import Scope
from tests.support.service import JSON, MERGE, Client, Service
from tests.test_delete import DELETE

LIST = """
query List(
  $id: ID!, $first: Int, $after: String, $last: Int, $before: String,
  $filter: TicketActivityFilter, $orderBy: TicketActivityOrder, $merged: Boolean! = true
) {
  ticket(id: $id) {
    activities(
      first: $first, after: $after, last: $last, before: $before,
      filter: $filter, orderBy: $orderBy, includeMerged: $merged
    ) {
      edges { cursor node { id ticketId } }
      nodes { id message createdAt updatedAt }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount filteredCount
    }
  }
}
"""


async def page(client: Client, ticket_id: str, **arguments: Any) -> JSON:
    document = await client.graphql(LIST, id=ticket_id, **arguments)
    assert "errors" not in document, document
    found: JSON = document["data"]["ticket"]["activities"]
    ids = [edge["node"]["id"] for edge in found["edges"]]
    assert ids == [node["id"] for node in found["nodes"]]
    return found


async def merge(client: Client, source: str, target: str) -> JSON:
    payload = await client.mutate(MERGE, sourceId=source, targetId=target)
    assert payload["userErrors"] == []
    entry: JSON = payload["mergedInto"]
    return entry


def messages(found: JSON) -> list[str]:
    return [node["message"] for node in found["nodes"] if node["message"]]


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(*Scope)


@pytest.fixture
async def tickets(service: Service, moderator: Client) -> list[str]:
    """Three tickets, the first merged into the second, that into the third; entries in turns."""
    tickets = [await moderator.create_ticket() for _ in range(3)]
    for number in range(9):
        service.clock.advance(seconds=1 if number % 2 else 0)  # two entries share a time
        await moderator.create_activity(tickets[number * 2 % 3], message=str(number))
    await merge(moderator, tickets[0], tickets[1])
    await merge(moderator, tickets[1], tickets[2])
    return tickets


async def test_the_entries_of_all_tickets_are_listed_as_one(
    moderator: Client, tickets: list[str]
) -> None:
    whole = await page(moderator, tickets[2], first=100)

    keys = [(node["createdAt"], UUID(node["id"])) for node in whole["nodes"]]
    assert keys == sorted(keys)
    assert sorted(messages(whole)) == [str(number) for number in range(9)]
    assert {edge["node"]["ticketId"] for edge in whole["edges"]} == set(tickets)
    # 3 entries that open tickets, 9 comments, 2 entries of each merge
    assert (whole["totalCount"], whole["filteredCount"], len(whole["nodes"])) == (16, 16, 16)
    alone = await page(moderator, tickets[2], merged=False)
    assert (alone["totalCount"], len(alone["nodes"])) == (5, 5)
    middle = await page(moderator, tickets[1], first=100)
    assert middle["totalCount"] == len(middle["nodes"]) == 11


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("field", ["CREATED_AT", "UPDATED_AT"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_pages_put_together_are_the_whole_in_both_directions(
    moderator: Client, tickets: list[str], size: int, field: str, direction: str
) -> None:
    order = {"field": field, "direction": direction}
    whole = (await page(moderator, tickets[2], first=100, orderBy=order))["nodes"]
    for forward, names in (
        (True, ("first", "after", "endCursor", "hasNextPage", "hasPreviousPage")),
        (False, ("last", "before", "startCursor", "hasPreviousPage", "hasNextPage")),
    ):
        count, place, end, more, other = names
        found: list[JSON] = []
        cursor, goes_on = None, True
        while goes_on:
            arguments = {count: size, place: cursor, "orderBy": order}
            read = await page(moderator, tickets[2], **arguments)
            assert read["pageInfo"][other] is bool(found)
            found = found + read["nodes"] if forward else read["nodes"] + found
            cursor, goes_on = read["pageInfo"][end], read["pageInfo"][more]
        assert found == whole


async def test_a_filter_and_its_count_go_over_all_tickets(
    moderator: Client, tickets: list[str]
) -> None:
    found = await page(moderator, tickets[2], first=100, filter={"types": ["MERGED_INTO"]})
    text = await page(moderator, tickets[2], filter={"text": "3"})

    assert (len(found["nodes"]), found["filteredCount"], found["totalCount"]) == (2, 2, 16)
    assert (messages(text), text["filteredCount"]) == (["3"], 1)


async def test_it_is_current_whichever_ticket_changes(
    moderator: Client, tickets: list[str]
) -> None:
    counts = []
    for ticket_id in [*tickets, tickets[0]]:
        await moderator.create_activity(ticket_id, message="new", allowMerged=True)
        found = await page(moderator, tickets[2], first=100)
        counts.append((found["totalCount"], messages(found).count("new")))

    assert counts == [(17, 1), (18, 2), (19, 3), (20, 4)]


async def test_a_merge_and_its_end_are_seen_at_once(moderator: Client, tickets: list[str]) -> None:
    """Also by way of a ticket that does not change itself."""
    other = await moderator.create_ticket()
    await moderator.create_activity(other, message="other")
    assert (await page(moderator, tickets[2]))["totalCount"] == 16
    assert await moderator.mutate(MERGE, sourceId=other, targetId=tickets[0])

    entry = await merge(moderator, other, tickets[2])
    assert (await page(moderator, tickets[2]))["totalCount"] == 16 + 4
    await moderator.mutate(DELETE, ticketId=other, activityId=entry["id"])
    assert (await page(moderator, tickets[2]))["totalCount"] == 16 + 1


async def test_private_entries_of_merged_tickets_are_for_those_who_see_them(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    author = await service.client()
    hidden = await author.create_activity(
        tickets[0], message="hush", isPrivate=True, allowMerged=True
    )
    reader = await service.client(Scope.READ)

    for client, count in ((author, 17), (moderator, 17), (reader, 16)):
        found = await page(client, tickets[2], first=100)
        assert (found["totalCount"], found["filteredCount"]) == (count, count)
        assert ("hush" in messages(found)) is (count == 17)
        read = await page(client, tickets[2], filter={"isPrivate": True})
        assert [node["id"] for node in read["nodes"]] == [hidden["id"]] * (count - 16)


async def test_a_circle_of_an_earlier_release_ends(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    await service.execute(
        "UPDATE ticket SET merged_into_id = :target WHERE id = :id",
        target=UUID(tickets[0]),
        id=UUID(tickets[2]),
    )

    for ticket_id in tickets:
        assert (await page(moderator, ticket_id))["totalCount"] == 16


async def test_too_many_tickets_are_refused_with_the_limit(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    others = [await moderator.create_ticket() for _ in range(99)]
    for id_ in others[:98]:
        await service.execute(
            "UPDATE ticket SET merged_into_id = :target WHERE id = :id",
            target=UUID(tickets[0]),
            id=UUID(id_),
        )
    assert (await page(moderator, tickets[2]))["totalCount"] == 16 + 98
    await merge(moderator, others[98], tickets[2])

    document = await moderator.graphql(LIST, id=tickets[2])

    [error] = document["errors"]
    assert error["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
    assert error["message"] == (
        f"More than 100 tickets were merged into {tickets[2]}, which is the limit of includeMerged."
    )
