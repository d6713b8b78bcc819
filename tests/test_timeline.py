"""Reading a timeline: pages, filters, orders, counts, revisions."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from service import JSON, Client, Service
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.auth import Scope
from app.errors import Busy

LIST = """
query List($id: UUID!, $first: Int, $after: String, $last: Int, $before: String,
           $filter: TicketActivityFilter, $orderBy: TicketActivityOrder) {
  ticket(id: $id) {
    activities(first: $first, after: $after, last: $last, before: $before,
               filter: $filter, orderBy: $orderBy) {
      edges { cursor node { id } }
      nodes { id message createdAt updatedAt }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount filteredCount
    }
  }
}
"""
ORDERS = [
    {"field": field, "direction": direction}
    for field in ("CREATED_AT", "UPDATED_AT")
    for direction in ("ASC", "DESC")
]


@pytest.fixture
async def author(service: Service) -> Client:
    return await service.client()


@pytest.fixture
async def ticket_id(service: Service, author: Client) -> str:
    """A ticket of 12 entries, some created and updated at the same time."""
    ticket_id = await author.create_ticket(message="0")
    entries = []
    for number in range(1, 12):
        if number % 3 == 0:
            service.clock.advance(seconds=1)
        entries.append(await author.create_activity(ticket_id, message=str(number)))
    for entry in entries[::2]:
        service.clock.advance(milliseconds=500 if entry is entries[4] else 0)
        await author.put(ticket_id, entry["id"], {"metadata": {"edited": True}})
    return ticket_id


async def page(client: Client, ticket_id: str, **arguments: Any) -> JSON:
    document = await client.graphql(LIST, id=ticket_id, **arguments)
    assert "errors" not in document, document
    found: JSON = document["data"]["ticket"]["activities"]
    return found


async def refused(client: Client, ticket_id: str, **arguments: Any) -> JSON:
    [error] = (await client.graphql(LIST, id=ticket_id, **arguments))["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    found: JSON = error
    return found


def ids(found: JSON) -> list[str]:
    assert [edge["node"]["id"] for edge in found["edges"]] == [
        node["id"] for node in found["nodes"]
    ]
    return [node["id"] for node in found["nodes"]]


def sorted_ids(found: JSON, order: JSON) -> list[str]:
    name = "createdAt" if order["field"] == "CREATED_AT" else "updatedAt"
    return [
        node["id"]
        for node in sorted(
            found["nodes"],
            key=lambda node: (node[name], node["id"]),
            reverse=order["direction"] == "DESC",
        )
    ]


# Pages


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order.values()))
@pytest.mark.parametrize("size", [1, 5, 12, 100])
async def test_pages_in_either_direction_make_up_the_sorted_list(
    author: Client, ticket_id: str, order: JSON, size: int
) -> None:
    whole = await page(author, ticket_id, first=100, orderBy=order)
    assert ids(whole) == sorted_ids(whole, order)
    assert len(ids(whole)) == 12

    forward, after = [], None
    while True:
        found = await page(author, ticket_id, first=size, after=after, orderBy=order)
        assert found["pageInfo"]["hasPreviousPage"] is (after is not None)
        forward += ids(found)
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    backward: list[str] = []
    before = None
    while True:
        found = await page(author, ticket_id, last=size, before=before, orderBy=order)
        assert found["pageInfo"]["hasNextPage"] is (before is not None)
        backward = ids(found) + backward
        before = found["pageInfo"]["startCursor"]
        if not found["pageInfo"]["hasPreviousPage"]:
            break

    assert forward == backward == ids(whole)


async def test_without_arguments_the_first_twenty_come_as_created(
    author: Client, ticket_id: str
) -> None:
    for number in range(20):
        await author.create_activity(ticket_id, message=f"more {number}")

    found = await page(author, ticket_id)

    assert len(ids(found)) == 20
    assert ids(found) == sorted_ids(found, ORDERS[0])
    assert (found["totalCount"], found["filteredCount"]) == (32, 32)


async def test_a_cursor_stays_valid_while_entries_come_change_and_go(
    service: Service, author: Client, ticket_id: str
) -> None:
    first = await page(author, ticket_id, first=6)
    rest = ids(await page(author, ticket_id, first=100, after=first["pageInfo"]["endCursor"]))
    delete = "mutation D($input: DeleteTicketActivityInput!) { deleteTicketActivity(input: $input) "
    delete += "{ userErrors { code } } }"
    for id_ in (ids(first)[-1], rest[1]):  # the entry of the cursor, and one after it
        await author.mutate(delete, ticketId=ticket_id, activityId=id_)
    service.clock.advance(seconds=1)
    added = await author.create_activity(ticket_id)
    await author.put(ticket_id, rest[0], {"message": "changed"})

    after = await page(author, ticket_id, first=100, after=first["pageInfo"]["endCursor"])

    assert ids(after) == [rest[0], *rest[2:], added["id"]]


async def test_an_empty_page_has_no_cursors(author: Client, ticket_id: str) -> None:
    found = await page(author, ticket_id, first=0)

    assert found["nodes"] == []
    assert found["pageInfo"]["startCursor"] is found["pageInfo"]["endCursor"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first": 101}, "0 to 100"),
        ({"first": -1}, "0 to 100"),
        ({"last": 101}, "0 to 100"),
        ({"first": 1, "last": 1}, "exclude each other"),
        ({"after": "x"}, "after is not a cursor"),
        ({"before": "é"}, "before is not a cursor"),
        ({"filter": {"text": "x" * 201}}, "the limit is 200"),
        *[
            ({"filter": {name: None}}, name)
            for name in ("types", "isPrivate", "since", "until", "text")
        ],
        ({"filter": {"since": "yesterday"}}, "since"),
    ],
)
async def test_an_argument_that_breaks_a_rule_is_named(
    author: Client, ticket_id: str, arguments: JSON, said: str
) -> None:
    assert said in (await refused(author, ticket_id, **arguments))["message"]


async def test_a_cursor_belongs_to_its_order(author: Client, ticket_id: str) -> None:
    cursor = (await page(author, ticket_id, first=1))["pageInfo"]["endCursor"]
    order = {"field": "UPDATED_AT", "direction": "ASC"}

    await refused(author, ticket_id, after=cursor, orderBy=order)
    forged = base64.urlsafe_b64encode(b"created_at 999999999999999 " + b"0" * 32).decode()
    await refused(author, ticket_id, after=forged)


# Filters


@pytest.mark.parametrize(
    ("wanted", "messages"),
    [
        ({}, ["opened", "Straße café", "printer JAM", "upload", None, "later"]),
        ({"types": ["VIEW", "DOCUMENT_UPLOAD"]}, ["upload", None]),
        ({"types": []}, []),
        ({"actorId": "AUTHOR"}, ["opened", "Straße café", "upload", "later"]),
        ({"actorId": None}, []),
        ({"isPrivate": True}, ["upload"]),
        ({"isPrivate": False, "types": ["COMMENT"]}, ["Straße café", "printer JAM", "later"]),
        ({"since": "2026-11-23T15:07:06.514Z"}, ["later"]),
        ({"since": "2026-11-23T16:07:06.514+01:00"}, ["later"]),
        (
            {"until": "2026-11-23T15:07:06.514Z"},
            ["opened", "Straße café", "printer JAM", "upload", None],
        ),
        ({"text": "jam"}, ["printer JAM"]),
        ({"text": "STRASSE"}, ["Straße café"]),
        ({"text": "afé tra"}, ["Straße café"]),
        ({"text": "jam printer"}, ["printer JAM"]),
        ({"text": "printerjam"}, []),
        ({"text": "%"}, []),
        ({"text": " "}, ["opened", "Straße café", "printer JAM", "upload", None, "later"]),
        ({"text": "a", "types": ["COMMENT"]}, ["Straße café", "printer JAM", "later"]),
    ],
)
async def test_a_filter_lists_and_counts_what_passes_it(
    service: Service, author: Client, wanted: JSON, messages: list[str | None]
) -> None:
    other = await service.client()
    ticket_id = await author.create_ticket(message="opened")
    await author.create_activity(ticket_id, message="Straße café")
    await other.create_activity(ticket_id, message="printer JAM")
    await author.create_activity(
        ticket_id,
        activityType="DOCUMENT_UPLOAD",
        documentId=ticket_id,
        message="upload",
        isPrivate=True,
    )
    await other.create_activity(ticket_id, activityType="VIEW")
    service.clock.advance(seconds=1)
    await author.create_activity(ticket_id, message="later")
    if wanted.get("actorId") == "AUTHOR":
        wanted = {"actorId": str(author.actor_id)}

    found = await page(author, ticket_id, filter=wanted)

    assert {node["message"] for node in found["nodes"]} == set(messages)
    assert len(found["nodes"]) == found["filteredCount"] == len(messages)
    assert found["totalCount"] == 6


# Plans


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the reads of entries that the service sends to its database."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith("SELECT"):
            sent.append((text, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order.values()))
async def test_every_page_is_read_from_an_index_without_sorting(
    service: Service, author: Client, ticket_id: str, order: JSON
) -> None:
    cursor = (await page(author, ticket_id, first=6, orderBy=order))["pageInfo"]["endCursor"]
    index = "ix_ticket_activity_" + order["field"].split("_", maxsplit=1)[0].lower()

    for arguments in ({"first": 5}, {"first": 5, "after": cursor}, {"last": 5, "before": cursor}):
        with statements() as sent:
            await page(author, ticket_id, orderBy=order, **arguments)
        pages = [one for one in sent if " LIMIT " in one[0] and "message" in one[0]]
        assert len(pages) == 1
        async with service.database.snapshot() as session:
            connection = await session.connection()
            plan = await connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {pages[0][0]}", pages[0][1]
            )
            text = " ".join(str(row._mapping["detail"]) for row in plan)
        assert index in text
        assert "TEMP B-TREE" not in text
        assert "SCAN" not in text


# Revisions

REVISIONS = """
query Revisions($id: UUID!, $activityId: UUID!, $first: Int, $after: String) {
  ticketActivity(ticketId: $id, activityId: $activityId) {
    revisions(first: $first, after: $after) {
      nodes { version changeType changedAt changedById message metadata isPrivate }
      pageInfo { endCursor hasNextPage hasPreviousPage } totalCount
    }
  }
}
"""


async def test_revisions_tell_every_version(service: Service, author: Client) -> None:
    moderator = await service.client(Scope.READ, Scope.MODERATE)
    entry = await author.create_activity(await author.create_ticket(), message="one")
    service.clock.advance(minutes=1)
    await moderator.put(entry["ticketId"], entry["id"], {"message": None, "metadata": {"a": 1}})
    await author.put(entry["ticketId"], entry["id"], {"isPrivate": True})

    document = await author.graphql(REVISIONS, id=entry["ticketId"], activityId=entry["id"])

    revisions = document["data"]["ticketActivity"]["revisions"]
    seen = [
        [node[name] for name in ("version", "changeType", "message", "metadata", "isPrivate")]
        for node in revisions["nodes"]
    ]
    assert seen == [
        [1, "ADDED", "one", {}, False],
        [2, "UPDATED", None, {"a": 1}, False],
        [3, "UPDATED", None, {"a": 1}, True],
    ]
    assert revisions["nodes"][1]["changedById"] == str(moderator.actor_id)
    assert revisions["nodes"][0]["changedAt"] == "2026-11-23T15:07:05.514Z"
    assert revisions["nodes"][1]["changedAt"] == "2026-11-23T15:08:05.514Z"
    assert revisions["totalCount"] == 3


async def test_revisions_come_in_pages(author: Client) -> None:
    entry = await author.create_activity(await author.create_ticket(), message="1")
    for number in range(2, 6):
        await author.put(entry["ticketId"], entry["id"], {"message": str(number)})

    found, after = [], None
    for _ in range(3):
        document = await author.graphql(
            REVISIONS, id=entry["ticketId"], activityId=entry["id"], first=2, after=after
        )
        revisions = document["data"]["ticketActivity"]["revisions"]
        found += [node["version"] for node in revisions["nodes"]]
        after = revisions["pageInfo"]["endCursor"]

    assert found == [1, 2, 3, 4, 5]
    assert revisions["pageInfo"]["hasNextPage"] is False


async def test_a_page_with_revisions_takes_as_many_statements_however_long(
    author: Client,
) -> None:
    query = """query Q($id: UUID!) { ticket(id: $id) { activities(first: 100) { nodes {
      id ticket { id } revisions(first: 5) { nodes { version } } } } } }"""
    counts = []
    for size in (2, 50):
        ticket_id = await author.create_ticket()
        for _ in range(size):
            await author.create_activity(ticket_id)
        with statements() as sent:
            document = await author.graphql(query, id=ticket_id)
        assert len(document["data"]["ticket"]["activities"]["nodes"]) == size + 1
        counts.append(len([text for text, _ in sent if "access_token" not in text]))

    assert counts[0] == counts[1] <= 4


# Objects by id


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


async def test_reads_that_find_no_connection_are_answered_busy(
    service: Service, author: Client, ticket_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = service.database  # beside the service's own: it has one connection for reads
    monkeypatch.setattr(database.read_engine.sync_engine.pool, "_timeout", 0.1)

    async with database.snapshot():
        with pytest.raises(Busy):
            async with database.snapshot():
                pass

    async with database.snapshot() as session:
        assert session.in_transaction()
