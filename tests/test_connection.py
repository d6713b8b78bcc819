"""`Ticket.activities`: pages in every order, cursors that last, counts, filters, indexes."""

import json
from base64 import urlsafe_b64encode
from itertools import product
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth import Scope
from app.settings import Settings
from tests.support.service import CREATE_TICKET, JSON, Client, Service, start
from tests.support.statements import is_found_by, statements

PAGE = """
query Page(
  $ticketId: ID!, $first: Int, $after: String, $last: Int, $before: String,
  $filter: TicketActivityFilter, $orderBy: TicketActivityOrder
) {
  ticket(id: $ticketId) {
    activities(
      first: $first, after: $after, last: $last, before: $before,
      filter: $filter, orderBy: $orderBy
    ) {
      edges { cursor node { id createdAt updatedAt message } }
      nodes { id createdAt updatedAt message }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount
      filteredCount
    }
  }
}
"""

DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""

ORDERS = [
    {"field": field, "direction": direction}
    for field, direction in product(("CREATED_AT", "UPDATED_AT"), ("ASC", "DESC"))
]
KEYS = {"CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt"}

ADA = UUID("0190a3f0-5c1e-7b2a-9d3e-00000000000a")
BEN = UUID("0190a3f0-5c1e-7b2a-9d3e-00000000000b")
NOBODY = UUID("0190a3f0-5c1e-7b2a-9d3e-00000000000c")
SECOND, THIRD, FOURTH = (f"2026-11-23T15:07:0{second}.514Z" for second in (6, 7, 8))


async def page(client: Client, ticket_id: str, **arguments: Any) -> JSON:
    """Read a page, and check that its parts tell the same."""
    document = await client.graphql(PAGE, ticketId=ticket_id, **arguments)
    assert "errors" not in document, document
    connection: JSON = document["data"]["ticket"]["activities"]
    edges, info = connection["edges"], connection["pageInfo"]
    assert connection["nodes"] == [edge["node"] for edge in edges]
    assert info["startCursor"] == (edges[0]["cursor"] if edges else None)
    assert info["endCursor"] == (edges[-1]["cursor"] if edges else None)
    return connection


async def refusal(client: Client, ticket_id: str, **arguments: Any) -> str:
    """Ask for a page that is refused; return why."""
    variables = {"ticketId": ticket_id} | arguments
    response = await client.request(
        "POST",
        "/graphql",
        content=json.dumps({"query": PAGE, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    document = response.json()
    assert document["data"] == {"ticket": None}
    [error] = document["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT"}
    return str(error["message"])


async def open_ticket(client: Client) -> tuple[str, JSON]:
    """Create a ticket; return its id and the entry that opens it."""
    payload = await client.mutate(CREATE_TICKET, message="opened")
    return payload["ticket"]["id"], payload["ticketActivity"]


async def delete(client: Client, entry: JSON) -> None:
    payload = await client.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])
    assert payload["userErrors"] == []


def ids(connection: JSON) -> list[str]:
    return [node["id"] for node in connection["nodes"]]


def messages(connection: JSON) -> list[str | None]:
    return [node["message"] for node in connection["nodes"]]


def looks(connection: JSON) -> tuple[bool, bool]:
    """Whether there is more before and after."""
    info = connection["pageInfo"]
    return info["hasPreviousPage"], info["hasNextPage"]


def cursor_of(connection: JSON, message: str) -> str:
    [cursor] = [
        edge["cursor"] for edge in connection["edges"] if edge["node"]["message"] == message
    ]
    return str(cursor)


def in_order(entries: list[JSON], order: JSON) -> list[str]:
    """The ids as the list must give them."""
    ordered = sorted(
        entries,
        key=lambda entry: (entry[KEYS[order["field"]]], entry["id"]),
        reverse=order["direction"] == "DESC",
    )
    return [entry["id"] for entry in ordered]


async def walk_forward(client: Client, ticket_id: str, size: int, order: JSON) -> list[str]:
    found: list[str] = []
    cursor, goes_on = None, True
    while goes_on:
        read = await page(client, ticket_id, first=size, after=cursor, orderBy=order)
        assert looks(read)[0] is bool(found)
        found += ids(read)
        cursor, goes_on = read["pageInfo"]["endCursor"], read["pageInfo"]["hasNextPage"]
    return found


async def walk_backward(client: Client, ticket_id: str, size: int, order: JSON) -> list[str]:
    found: list[str] = []
    cursor, goes_on = None, True
    while goes_on:
        read = await page(client, ticket_id, last=size, before=cursor, orderBy=order)
        assert looks(read)[1] is bool(found)
        found = ids(read) + found
        cursor, goes_on = read["pageInfo"]["startCursor"], read["pageInfo"]["hasPreviousPage"]
    return found


async def happen(service: Service, client: Client, steps: list[int | None]) -> list[JSON]:
    """Open a ticket; for each step let time pass, add an entry, or update the entry so numbered."""
    ticket_id, opening = await open_ticket(client)
    added: list[str] = []
    for number, step in enumerate(steps):
        if step is None:
            service.clock.advance(milliseconds=1)
        elif step < len(added):
            await client.put(ticket_id, added[step], {"message": f"updated {number}"})
        else:
            entry = await client.create_activity(ticket_id, message=f"added {number}")
            added.append(entry["id"])
    entries = [await client.find(ticket_id, id_) for id_ in added]
    return [opening, *(entry for entry in entries if entry)]


@given(
    steps=st.lists(st.none() | st.integers(0, 8), max_size=12),
    size=st.integers(1, 4),
    order=st.sampled_from(ORDERS),
)
@hypothesis_settings(max_examples=15, derandomize=True)
def test_pages_put_together_are_the_sorted_list(
    blank: Settings, steps: list[int | None], size: int, order: JSON
) -> None:
    async def run() -> None:
        async with start(blank) as service:
            client = await service.client()
            entries = await happen(service, client, steps)
            ticket_id, expected = entries[0]["ticketId"], in_order(entries, order)
            assert await walk_forward(client, ticket_id, size, order) == expected
            assert await walk_backward(client, ticket_id, size, order) == expected

    anyio.run(run)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order.values()))
async def test_entries_of_one_moment_are_paged_by_their_ids(service: Service, order: JSON) -> None:
    client = await service.client()
    entries = await happen(service, client, [9, 9, 9, None, 1, 9, 9, 9, None, 0, 4, 9])
    ticket_id, expected = entries[0]["ticketId"], in_order(entries, order)

    assert len(expected) == 8
    assert await walk_forward(client, ticket_id, 2, order) == expected
    assert await walk_backward(client, ticket_id, 3, order) == expected


async def test_without_arguments_the_first_twenty_come_as_created(service: Service) -> None:
    client = await service.client()
    entries = await happen(service, client, [*[99] * 20, None, 99])

    read = await page(client, entries[0]["ticketId"])

    assert ids(read) == in_order(entries, ORDERS[0])[:20]
    assert looks(read) == (False, True)


@pytest.fixture
async def five(service: Service) -> tuple[Client, str]:
    """A client, and a ticket with the entries opened, 1, 2, 3, 4 in this order."""
    client = await service.client()
    ticket_id, _ = await open_ticket(client)
    for number in range(1, 5):
        service.clock.advance(seconds=1)
        await client.create_activity(ticket_id, message=str(number))
    return client, ticket_id


@pytest.mark.parametrize(
    ("arguments", "expected", "before_and_after"),
    [
        ({"first": 2}, ["opened", "1"], (False, True)),
        ({"first": 5}, ["opened", "1", "2", "3", "4"], (False, False)),
        ({"first": 2, "after": "opened"}, ["1", "2"], (True, True)),
        ({"first": 2, "after": "2"}, ["3", "4"], (True, False)),
        ({"first": 2, "after": "4"}, [], (True, False)),
        ({"first": 0}, [], (False, True)),
        ({"first": 0, "after": "1"}, [], (True, True)),
        ({"first": 1, "after": "1", "before": "4"}, ["2"], (True, True)),
        ({"last": 2}, ["3", "4"], (True, False)),
        ({"last": 5}, ["opened", "1", "2", "3", "4"], (False, False)),
        ({"last": 2, "before": "4"}, ["2", "3"], (True, True)),
        ({"last": 2, "before": "2"}, ["opened", "1"], (False, True)),
        ({"last": 2, "before": "opened"}, [], (False, True)),
        ({"last": 0}, [], (True, False)),
        ({"last": 0, "before": "3"}, [], (True, True)),
        ({"last": 1, "after": "1", "before": "4"}, ["3"], (True, True)),
    ],
    ids=str,
)
async def test_a_page_tells_what_lies_on_either_side(
    five: tuple[Client, str],
    arguments: JSON,
    expected: list[str],
    before_and_after: tuple[bool, bool],
) -> None:
    client, ticket_id = five
    everything = await page(client, ticket_id)
    cursors = {
        name: cursor_of(everything, arguments[name])
        for name in ("after", "before")
        if name in arguments
    }

    read = await page(client, ticket_id, **arguments | cursors)

    assert messages(read) == expected
    assert looks(read) == before_and_after


async def test_entries_beyond_the_cursor_that_ends_a_page_lie_after_it(
    five: tuple[Client, str],
) -> None:
    client, ticket_id = five
    cursors = [edge["cursor"] for edge in (await page(client, ticket_id))["edges"]]

    ended = (await page(client, ticket_id, before=cursors[2]))["pageInfo"]
    begun = (await page(client, ticket_id, last=100, after=cursors[2]))["pageInfo"]

    assert (ended["hasPreviousPage"], ended["hasNextPage"]) == (False, True)
    assert (begun["hasPreviousPage"], begun["hasNextPage"]) == (True, False)


async def test_a_filter_decides_what_lies_on_either_side(five: tuple[Client, str]) -> None:
    client, ticket_id = five
    everything = await page(client, ticket_id)
    after = cursor_of(everything, "1")

    read = await page(client, ticket_id, first=1, after=after, filter={"since": FOURTH})
    assert (messages(read), looks(read)) == (["3"], (False, True))
    read = await page(client, ticket_id, last=1, before=after, filter={"until": SECOND})
    assert (messages(read), looks(read)) == (["opened"], (False, False))


async def test_a_cursor_counts_in_both_directions_of_its_order(five: tuple[Client, str]) -> None:
    client, ticket_id = five
    cursor = cursor_of(await page(client, ticket_id), "2")

    read = await page(client, ticket_id, after=cursor, orderBy={"direction": "DESC"})

    assert messages(read) == ["1", "opened"]


async def test_cursors_last_while_entries_come_change_and_go(
    service: Service, five: tuple[Client, str]
) -> None:
    client, ticket_id = five
    everything = await page(client, ticket_id)
    entries = dict(zip(messages(everything), ids(everything), strict=True))
    cursor = cursor_of(everything, "2")
    service.clock.advance(seconds=1)
    await client.create_activity(ticket_id, message="5")
    await client.put(ticket_id, entries["1"], {"message": "1 updated"})
    await client.put(ticket_id, entries["3"], {"message": "3 updated"})
    for gone in ("2", "4"):
        await delete(client, {"ticketId": ticket_id, "id": entries[gone]})

    forward = await page(client, ticket_id, first=5, after=cursor)
    backward = await page(client, ticket_id, last=5, before=cursor)

    assert messages(forward) == ["3 updated", "5"]
    assert looks(forward) == (True, False)
    assert messages(backward) == ["opened", "1 updated"]
    assert looks(backward) == (False, True)


async def test_a_cursor_by_update_keeps_its_place_when_its_entry_moves(
    service: Service, five: tuple[Client, str]
) -> None:
    client, ticket_id = five
    by_update = {"field": "UPDATED_AT"}
    everything = await page(client, ticket_id, orderBy=by_update)
    cursor = cursor_of(everything, "1")
    service.clock.advance(seconds=1)
    await client.put(ticket_id, ids(everything)[1], {"message": "1 updated"})

    read = await page(client, ticket_id, after=cursor, orderBy=by_update)

    assert messages(read) == ["2", "3", "4", "1 updated"]


async def test_the_total_ignores_the_filter_and_the_page(five: tuple[Client, str]) -> None:
    client, ticket_id = five

    for arguments in ({"first": 1}, {"last": 0}, {}):
        read = await page(client, ticket_id, **arguments, filter={"types": ["COMMENT"]})
        assert (read["totalCount"], read["filteredCount"]) == (5, 4)
    read = await page(client, ticket_id)
    assert (read["totalCount"], read["filteredCount"]) == (5, 5)


async def test_the_list_of_one_ticket_holds_nothing_of_another(five: tuple[Client, str]) -> None:
    client, _ = five
    other, _ = await open_ticket(client)

    read = await page(client, other)

    assert messages(read) == ["opened"]
    assert (read["totalCount"], read["filteredCount"]) == (1, 1)


@pytest.fixture
async def varied(service: Service) -> tuple[Client, str]:
    """A client who sees everything, and a ticket with an entry of many a kind, a second apart."""
    ada = await service.client(*Scope, actor_id=ADA)
    ben = await service.client(actor_id=BEN)
    ticket_id, _ = await open_ticket(ada)
    entries: list[tuple[Client, JSON]] = [
        (ada, {"message": "Die STRASSE nach Łódź"}),
        (ben, {"message": "100% of snake_case", "isPrivate": True}),
        (ben, {"activityType": "DOCUMENT_UPLOAD", "documentId": str(NOBODY)}),
        (ada, {"activityType": "FIELD_CHANGE", "message": "by no actor"}),
    ]
    for author, entry in entries:
        service.clock.advance(seconds=1)
        await author.create_activity(ticket_id, **entry)
    await service.execute(
        "UPDATE ticket_activity SET actor_id = NULL WHERE message = 'by no actor'"
    )
    return ada, ticket_id


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["opened", "Die STRASSE nach Łódź", "100% of snake_case", None, "by no actor"]),
        ({"types": []}, []),
        ({"types": ["COMMENT"]}, ["Die STRASSE nach Łódź", "100% of snake_case"]),
        ({"types": ["FIELD_CHANGE", "TICKET_CREATED"]}, ["opened", "by no actor"]),
        ({"types": ["DOCUMENT_UPLOAD", "DOCUMENT_UPLOAD"]}, [None]),
        ({"types": ["MERGED_FROM"]}, []),
        ({"actorId": str(ADA)}, ["opened", "Die STRASSE nach Łódź"]),
        ({"actorId": str(BEN).upper()}, ["100% of snake_case", None]),
        ({"actorId": str(NOBODY)}, []),
        ({"actorId": None}, ["by no actor"]),
        ({"isPrivate": True}, ["100% of snake_case"]),
        ({"isPrivate": False}, ["opened", "Die STRASSE nach Łódź", None, "by no actor"]),
        ({"since": FOURTH}, [None, "by no actor"]),
        ({"until": THIRD}, ["opened", "Die STRASSE nach Łódź"]),
        ({"since": SECOND, "until": THIRD}, ["Die STRASSE nach Łódź"]),
        ({"since": THIRD, "until": THIRD}, []),
        ({"since": "2026-11-23T17:07:06.514+02:00", "until": THIRD}, ["Die STRASSE nach Łódź"]),
        (
            {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z", "text": "op"},
            ["opened"],
        ),
        ({"text": "straße"}, ["Die STRASSE nach Łódź"]),
        ({"text": "ŁÓDŹ"}, ["Die STRASSE nach Łódź"]),
        ({"text": "łó"}, ["Die STRASSE nach Łódź"]),
        ({"text": "OPENED"}, ["opened"]),
        ({"text": "pene"}, ["opened"]),
        ({"text": "nach die"}, ["Die STRASSE nach Łódź"]),
        ({"text": "  łódź \t ass "}, ["Die STRASSE nach Łódź"]),
        ({"text": "die " * 50}, ["Die STRASSE nach Łódź"]),
        ({"text": "nach missing"}, []),
        ({"text": "%"}, ["100% of snake_case"]),
        ({"text": "e_c"}, ["100% of snake_case"]),
        ({"text": "openXed"}, []),
        ({"text": "'; DROP"}, []),
        ({"text": "n" * 200}, []),
        ({"types": ["COMMENT"], "actorId": str(BEN), "isPrivate": True}, ["100% of snake_case"]),
        ({"types": ["COMMENT"], "actorId": None}, []),
    ],
    ids=str,
)
async def test_a_filter_lists_what_passes_all_of_it(
    varied: tuple[Client, str], wanted: JSON, expected: list[str | None]
) -> None:
    client, ticket_id = varied

    read = await page(client, ticket_id, filter=wanted)
    descending = await page(client, ticket_id, filter=wanted, orderBy={"direction": "DESC"})

    assert messages(read) == expected
    assert messages(descending) == expected[::-1]
    assert (read["totalCount"], read["filteredCount"]) == (5, len(expected))


@pytest.mark.parametrize("blank_text", ["", " \t\n"])
async def test_a_text_without_a_word_lists_everything(
    varied: tuple[Client, str], blank_text: str
) -> None:
    client, ticket_id = varied

    read = await page(client, ticket_id, filter={"text": blank_text})

    assert read["filteredCount"] == 5


async def test_a_filter_of_null_lists_everything(varied: tuple[Client, str]) -> None:
    client, ticket_id = varied

    read = await page(client, ticket_id, filter=None, orderBy=None, first=None, last=None)

    assert read["filteredCount"] == len(read["nodes"]) == 5


@pytest.mark.parametrize("name", ["types", "isPrivate", "since", "until", "text"])
async def test_null_in_a_filter_is_refused(five: tuple[Client, str], name: str) -> None:
    client, ticket_id = five

    said = await refusal(client, ticket_id, filter={name: None})

    assert said == f"{name} must not be null; leave it out instead."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first": 1, "last": 1}, "first and last exclude each other."),
        ({"first": 0, "last": 0}, "first and last exclude each other."),
        ({"first": 101}, "first is 101; it must be 0 to 100."),
        ({"first": -1}, "first is -1; it must be 0 to 100."),
        ({"last": 101}, "last is 101; it must be 0 to 100."),
        ({"last": -1}, "last is -1; it must be 0 to 100."),
        ({"filter": {"text": "x" * 201}}, "text has 201 characters; the limit is 200."),
    ],
    ids=str,
)
async def test_a_page_beyond_the_rules_is_refused(
    five: tuple[Client, str], arguments: JSON, said: str
) -> None:
    client, ticket_id = five

    assert await refusal(client, ticket_id, **arguments) == said


def encoded(cursor: str) -> str:
    return urlsafe_b64encode(cursor.encode()).decode()


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "x",
        "é",
        "====",
        "\ud800",
        "gICA",
        encoded("version 1"),
        encoded("created_at 1"),
        encoded(f"created_at 1 {'g' * 32}"),
        encoded(f"created_at 1.5 {'0' * 32}"),
        encoded(f"created_at ١ {'0' * 32}"),
        encoded(f"created_at {'9' * 15} {'0' * 32}"),
        encoded(f"created_at -{'9' * 15} {'0' * 32}"),
        encoded(f"created_at {'9' * 16} {'0' * 32}"),
        encoded(f"created_at 1 {'0' * 32}\n"),
        encoded(f"is_private 1 {'0' * 32}"),
        " " + encoded(f"created_at 1 {'0' * 32}"),
    ],
    ids=ascii,
)
async def test_what_is_no_cursor_is_refused(five: tuple[Client, str], garbage: str) -> None:
    client, ticket_id = five

    for name in ("after", "before"):
        said = await refusal(client, ticket_id, **{name: garbage})
        assert said.startswith(f"{name} is not a cursor of this connection")


@pytest.mark.parametrize(("field", "other"), [KEYS, [*KEYS][::-1]])
async def test_a_cursor_of_another_order_is_refused(
    five: tuple[Client, str], field: str, other: str
) -> None:
    client, ticket_id = five
    read = await page(client, ticket_id, orderBy={"field": field})

    said = await refusal(
        client, ticket_id, after=read["pageInfo"]["endCursor"], orderBy={"field": other}
    )

    assert said == "after is not a cursor of this connection in this order."


@pytest.mark.parametrize(
    ("impossible", "what"),
    [
        ("\ud800", "half of a surrogate pair"),
        ("a\udfffb", "half of a surrogate pair"),
        ("opened\0", "the character NUL"),
    ],
    ids=ascii,
)
async def test_a_text_that_no_message_can_hold_is_refused(
    five: tuple[Client, str], impossible: str, what: str
) -> None:
    client, ticket_id = five

    assert what in await refusal(client, ticket_id, filter={"text": impossible})


INDEXES = {
    "CREATED_AT": "ix_ticket_activity_created",
    "UPDATED_AT": "ix_ticket_activity_updated",
}
WANTED: list[JSON] = [{}, {"text": "x", "types": ["COMMENT"], "actorId": str(ADA)}]


@pytest.mark.plans
@pytest.mark.parametrize("scopes", [[Scope.READ], [Scope.READ, Scope.PRIVATE]], ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order.values()))
async def test_a_page_is_found_on_the_index_of_its_order(
    service: Service, five: tuple[Client, str], order: JSON, scopes: list[Scope]
) -> None:
    _, ticket_id = five
    client = await service.client(*scopes)
    ends = (await page(client, ticket_id, orderBy=order))["pageInfo"]
    windows: list[JSON] = [
        {"first": 2},
        {"first": 2, "after": ends["startCursor"]},
        {"last": 2},
        {"last": 2, "before": ends["endCursor"]},
        {"first": 2, "after": ends["startCursor"], "before": ends["endCursor"]},
    ]

    with statements() as seen:
        for window, wanted in product(windows, WANTED):
            await page(client, ticket_id, orderBy=order, filter=wanted, **window)

    pages = [(said, parameters) for said, parameters in seen if "ORDER BY" in said]
    assert len(pages) == 10
    for statement, parameters in pages:
        plan = await service.explain(statement, parameters)
        assert is_found_by(plan, INDEXES[order["field"]]), plan


@pytest.mark.plans
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order.values()))
async def test_a_page_since_a_time_is_found_without_sorting(
    service: Service, five: tuple[Client, str], order: JSON
) -> None:
    client, ticket_id = five

    with statements() as seen:
        await page(client, ticket_id, orderBy=order, filter={"since": SECOND, "until": FOURTH})

    [(statement, parameters)] = [one for one in seen if "ORDER BY" in one[0]]
    plan = await service.explain(statement, parameters)
    assert is_found_by(plan, INDEXES[order["field"]]), plan
