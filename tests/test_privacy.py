"""A private entry does not exist for those who may not see it: the same bytes on every path."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app.auth import Scope
from tests.support.service import (
    ACTIVITY,
    ACTIVITY_FIELDS,
    CREATE_ACTIVITY,
    CREATE_TICKET,
    JSON,
    UPDATE,
    Client,
    Service,
    activity_url,
)

MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"

SEEING = {
    "another agent with activity:private": [Scope.READ, Scope.WRITE, Scope.PRIVATE],
    "the author": [Scope.READ, Scope.WRITE],  # the last one: who may delete the entry
}
BLIND = {
    "another agent": [Scope.READ, Scope.WRITE],
    "a moderator without activity:private": [Scope.READ, Scope.WRITE, Scope.MODERATE],
    "a reader": [Scope.READ],
}
CREATORS = [name for name, scopes in BLIND.items() if Scope.WRITE in scopes]

NODE = f"query Node($id: ID!) {{ node(id: $id) {{ id ...activityFields }} }} {ACTIVITY_FIELDS}"
NODES = (
    f"query Nodes($ids: [ID!]!) {{ nodes(ids: $ids) {{ ...activityFields }} }} {ACTIVITY_FIELDS}"
)
REVISIONS = """
query Revisions($ticketId: ID!, $activityId: ID!, $id: ID!) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    revisions { nodes { message isPrivate } totalCount }
  }
  node(id: $id) { ... on TicketActivity { revisions { totalCount } } }
}
"""
ACTORS = """
query Actors($ticketId: ID!, $activityId: ID!, $id: ID!) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    actor { id name } updatedBy { id name } revisions { nodes { changedBy { id name } } }
  }
  node(id: $id) { ... on TicketActivity { actor { id name } } }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) {
    deletedTicketActivityId ticketActivity { id } userErrors { code message path }
  }
}
"""
REDACT = f"""
mutation Redact($input: RedactTicketActivityInput!) {{
  redactTicketActivity(input: $input) {{
    ticketActivity {{ ...activityFields redaction {{ reason }} }} userErrors {{ code message path }}
  }}
}}
{ACTIVITY_FIELDS}"""
RESTORE = f"""
mutation Restore($input: RestoreTicketActivityInput!) {{
  restoreTicketActivity(input: $input) {{
    ticketActivity {{ ...activityFields }} userErrors {{ code message path }}
  }}
}}
{ACTIVITY_FIELDS}"""
LIST = """
query List(
  $ticketId: ID!, $first: Int, $after: String, $last: Int, $before: String,
  $filter: TicketActivityFilter, $orderBy: TicketActivityOrder
) {
  ticket(id: $ticketId) {
    activities(
      first: $first, after: $after, last: $last, before: $before,
      filter: $filter, orderBy: $orderBy
    ) {
      edges { cursor node { id message version } }
      pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
      totalCount
      filteredCount
    }
  }
}
"""

Answer = tuple[int, dict[str, str], bytes]
Path = Callable[[Client, str, str], Awaitable[httpx2.Response]]


async def send(client: Client, query: str, **variables: Any) -> httpx2.Response:
    body = {"query": query, "variables": variables}
    return await client.request("POST", "/graphql", json=body)


def asking(query: str) -> Path:
    async def ask(client: Client, ticket_id: str, id_: str) -> httpx2.Response:
        names = {"ticketId": ticket_id, "activityId": id_, "id": id_, "ids": [ticket_id, id_, id_]}
        return await send(
            client, query, **{name: value for name, value in names.items() if f"${name}:" in query}
        )

    return ask


def mutating(mutation: str, **fields: Any) -> Path:
    async def mutate(client: Client, ticket_id: str, id_: str) -> httpx2.Response:
        return await send(
            client, mutation, input={"ticketId": ticket_id, "activityId": id_} | fields
        )

    return mutate


def requesting(method: str, body: Any = None, **headers: str) -> Path:
    async def request(client: Client, ticket_id: str, id_: str) -> httpx2.Response:
        options = {} if body is None else {"json": body}
        url = activity_url(ticket_id, id_)
        return await client.request(method, url, headers=headers, **options)

    return request


async def put_with_a_key(client: Client, ticket_id: str, id_: str) -> httpx2.Response:
    headers = {"Idempotency-Key": id_}
    return await client.put(ticket_id, id_, {"message": "changed"}, **headers)


async def update_twice_with_a_key(client: Client, ticket_id: str, id_: str) -> httpx2.Response:
    """Return the answer to the repeat, which is kept."""
    input_ = {"ticketId": ticket_id, "activityId": id_, "message": "changed"}
    body = {"query": UPDATE, "variables": {"input": input_}}
    headers = {"Idempotency-Key": f"twice-{id_}"}
    await client.request("POST", "/graphql", json=body, headers=headers)
    return await client.request("POST", "/graphql", json=body, headers=headers)


PATHS: dict[str, Path] = {
    "ticketActivity": asking(ACTIVITY),
    "node": asking(NODE),
    "nodes": asking(NODES),
    "revisions": asking(REVISIONS),
    "actors": asking(ACTORS),
    "PUT with a key": put_with_a_key,
    "update twice with a key": update_twice_with_a_key,
    "GET": requesting("GET"),
    "GET of a version": requesting("GET", **{"If-None-Match": '"2"'}),
    "GET of any version": requesting("GET", **{"If-None-Match": "*"}),
    "HEAD": requesting("HEAD"),
    "PUT": requesting("PUT", {"message": "changed"}),
    "PUT of nothing": requesting("PUT", {}),
    "PUT to its version": requesting("PUT", {"message": "changed"}, **{"If-Match": '"2"'}),
    "PUT to another version": requesting("PUT", {"message": "changed"}, **{"If-Match": '"7"'}),
    "PUT to make it public": requesting("PUT", {"isPrivate": False}),
    "update": mutating(UPDATE, message="changed"),
    "update of nothing": mutating(UPDATE),
    "update of its version": mutating(UPDATE, message="changed", expectedVersion=2),
    "update of another version": mutating(UPDATE, message="changed", expectedVersion=7),
    "update by a patch": mutating(UPDATE, metadataPatch={"secret": None}),
    "update to make it public": mutating(UPDATE, isPrivate=False),
    "restore": mutating(RESTORE, toVersion=1),
    "restore from its version": mutating(RESTORE, toVersion=1, expectedVersion=2),
    "restore from another version": mutating(RESTORE, toVersion=1, expectedVersion=7),
    "restore to no version": mutating(RESTORE, toVersion=7),
    "redact": mutating(REDACT, reason="It was a secret."),
    "delete": mutating(DELETE),
    "delete of its version": mutating(DELETE, expectedVersion=2),
    "delete of another version": mutating(DELETE, expectedVersion=7),
}


def answered(response: httpx2.Response, id_: str) -> Answer:
    """All of a response but for the id asked for, and the id of the request."""
    request_id = response.headers["X-Request-ID"]
    headers = {
        name: value for name, value in response.headers.items() if name.lower() != "x-request-id"
    }
    content = response.content.replace(id_.encode(), b"ID").replace(request_id.encode(), b"REQUEST")
    return response.status_code, headers, content


@pytest.fixture
async def entry(service: Service, author: Client) -> JSON:
    """A private entry at version 2, public once, between public ones."""
    ticket_id = await author.create_ticket(message="opened")
    await author.create_activity(ticket_id, message="before it")
    service.clock.advance(seconds=1)
    entry = await author.create_activity(ticket_id, message="public", metadata={"secret": 1})
    service.clock.advance(seconds=1)
    await author.create_activity(ticket_id, message="after it")
    response = await author.put(ticket_id, entry["id"], {"message": "hush", "isPrivate": True})
    assert response.status_code == 200
    return entry


async def viewer(service: Service, author: Client, name: str) -> Client:
    scopes = (SEEING | BLIND)[name]
    actor_id = author.actor_id if name == "the author" else None
    return await service.client(*scopes, actor_id=actor_id)


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_hidden_answers_as_what_does_not_exist(
    service: Service, author: Client, entry: JSON, path: str
) -> None:
    before = await author.find(entry["ticketId"], entry["id"])

    for name in BLIND:
        client = await viewer(service, author, name)
        hidden = await PATHS[path](client, entry["ticketId"], entry["id"])
        missing = await PATHS[path](client, entry["ticketId"], MISSING)
        assert answered(hidden, entry["id"]) == answered(missing, MISSING), name
        assert b"hush" not in hidden.content

    assert await author.find(entry["ticketId"], entry["id"]) == before
    assert len(await service.history(entry["ticketId"])) == 5


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_seen_answers_otherwise_than_what_does_not_exist(
    service: Service, author: Client, entry: JSON, path: str
) -> None:
    for name in SEEING:
        client = await viewer(service, author, name)
        seen = await PATHS[path](client, entry["ticketId"], entry["id"])
        missing = await PATHS[path](client, entry["ticketId"], MISSING)
        assert answered(seen, entry["id"]) != answered(missing, MISSING), name


async def pages_around(client: Client, ticket_id: str) -> list[bytes]:
    """Every page of one entry, in all orders, there and back."""
    found = []
    for field, direction in [("CREATED_AT", "ASC"), ("CREATED_AT", "DESC"), ("UPDATED_AT", "ASC")]:
        order = {"field": field, "direction": direction}
        for size, cursor, more, end in [
            ("first", "after", "hasNextPage", "endCursor"),
            ("last", "before", "hasPreviousPage", "startCursor"),
        ]:
            place, goes_on = None, True
            while goes_on:
                arguments = {"orderBy": order, size: 1, cursor: place}
                response = await send(client, LIST, ticketId=ticket_id, **arguments)
                found.append(response.content)
                info = response.json()["data"]["ticket"]["activities"]["pageInfo"]
                place, goes_on = info[end], info[more]
    return found


def listing(**arguments: Any) -> Callable[[Client, str], Awaitable[list[bytes]]]:
    async def read(client: Client, ticket_id: str) -> list[bytes]:
        return [(await send(client, LIST, ticketId=ticket_id, **arguments)).content]

    return read


LISTS = {
    "list": listing(),
    "page that ends at it": listing(first=2),
    "page that begins after it": listing(last=1),
    "filter by privacy": listing(filter={"isPrivate": True}),
    "filter by its text": listing(filter={"text": "hush"}),
    "filter by its time": listing(
        filter={"since": "2026-11-23T15:07:06.514Z", "until": "2026-11-23T15:07:06.515Z"}
    ),
    "filter by types": listing(filter={"types": ["COMMENT"]}),
    "pages of one": pages_around,
}


@pytest.mark.parametrize("path", LISTS)
async def test_lists_and_counts_are_as_if_the_hidden_were_deleted(
    service: Service, author: Client, entry: JSON, path: str
) -> None:
    clients = {name: await viewer(service, author, name) for name in BLIND | SEEING}
    read, ticket_id = LISTS[path], entry["ticketId"]
    hidden = {name: await read(client, ticket_id) for name, client in clients.items()}

    await author.mutate(DELETE, ticketId=ticket_id, activityId=entry["id"])

    for name, client in clients.items():
        assert all("errors" not in json.loads(content) for content in hidden[name])
        assert (hidden[name] == await read(client, ticket_id)) is (name in BLIND), name


EVERYTHING = f"""
query Everything($ticketId: ID!, $activityId: ID!, $id: ID!) {{
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {{ ...activityFields ...past }}
  node(id: $id) {{ ...activityFields ...past }}
  ticket(id: $ticketId) {{ activities(filter: {{types: [COMMENT]}}) {{ nodes {{ ...past }} }} }}
  ticketActivityChanges(ticketId: $ticketId, first: 20) {{
    nodes {{ changeType activityId changedById ticketActivity {{ ...activityFields ...past }} }}
  }}
}}
fragment past on TicketActivity {{
  revisions {{ edges {{ node {{ message metadata }} }} nodes {{ message metadata }} }}
}}
{ACTIVITY_FIELDS}"""

PRIVATE_PASTS: dict[str, list[JSON]] = {
    "private from the start": [{"isPrivate": True}, {}],
    "hidden and edited": [{"isPrivate": False, "message": "open"}, {"isPrivate": True}, {}],
    "hidden twice": [
        {"isPrivate": True},
        {"isPrivate": False, "message": "open"},
        {"isPrivate": True},
    ],
}


async def published(author: Client, ticket_id: str, states: list[JSON]) -> str:
    """Write an entry through states that say a secret where they say nothing else; publish it."""
    secret = {"message": "hush", "metadata": {"secret": "hush"}}
    first, *later = [secret | ({"metadata": {}} if "message" in s else {}) | s for s in states]
    entry = await author.create_activity(ticket_id, **first)
    for body in [*later, {"isPrivate": False, "message": "public", "metadata": {}}]:
        assert (await author.put(ticket_id, entry["id"], body)).status_code == 200
    return str(entry["id"])


@pytest.mark.parametrize("past", PRIVATE_PASTS)
async def test_what_was_said_in_private_stays_private_when_the_entry_is_public(
    service: Service, author: Client, past: str
) -> None:
    ticket_id = await author.create_ticket()
    id_ = await published(author, ticket_id, PRIVATE_PASTS[past])

    for name in BLIND | SEEING:
        client = await viewer(service, author, name)
        response = await asking(EVERYTHING)(client, ticket_id, id_)
        assert "errors" not in response.json(), response.text
        assert ("hush" in response.text) is (name in SEEING), name
        assert "public" in response.text


@pytest.mark.parametrize("past", PRIVATE_PASTS)
async def test_a_patch_tells_nothing_of_what_was_said_in_private(
    service: Service, author: Client, past: str
) -> None:
    ticket_id = await author.create_ticket()
    id_ = await published(author, ticket_id, PRIVATE_PASTS[past])
    moderator = await viewer(service, author, "a moderator without activity:private")

    payload = await moderator.mutate(
        UPDATE, ticketId=ticket_id, activityId=id_, metadataPatch={"secret": None}
    )

    assert payload["ticketActivity"]["metadata"] == {}
    assert payload["ticketActivity"]["updatedById"] == str(author.actor_id), "nothing changed"


@pytest.mark.parametrize("name", BLIND)
async def test_a_filter_by_author_finds_no_private_entry_of_others(
    service: Service, author: Client, entry: JSON, name: str
) -> None:
    client = await viewer(service, author, name)

    response = await send(
        client,
        LIST,
        ticketId=entry["ticketId"],
        filter={"actorId": str(author.actor_id), "isPrivate": True},
    )

    connection = response.json()["data"]["ticket"]["activities"]
    assert connection["edges"] == []
    assert (connection["totalCount"], connection["filteredCount"]) == (3, 0)


@pytest.mark.parametrize("name", BLIND)
@pytest.mark.parametrize("arguments", [("first", "after"), ("last", "before")], ids=str)
async def test_the_cursor_of_a_hidden_entry_is_a_place_and_no_more(
    service: Service, author: Client, entry: JSON, name: str, arguments: tuple[str, str]
) -> None:
    size, cursor = arguments
    client = await viewer(service, author, name)
    own = (await send(author, LIST, ticketId=entry["ticketId"])).json()
    [place] = [
        edge["cursor"]
        for edge in own["data"]["ticket"]["activities"]["edges"]
        if edge["node"]["id"] == entry["id"]
    ]
    window: JSON = {size: 5, cursor: place}
    hidden = await send(client, LIST, ticketId=entry["ticketId"], **window)
    await author.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])

    gone = await send(client, LIST, ticketId=entry["ticketId"], **window)

    assert hidden.json()["data"]["ticket"]["activities"]["edges"]
    assert hidden.content == gone.content


@pytest.mark.parametrize("name", [*SEEING, *CREATORS])
async def test_a_taken_id_is_taken_for_everybody(
    service: Service, author: Client, entry: JSON, name: str
) -> None:
    client = await viewer(service, author, name)
    comment = {"ticketId": entry["ticketId"], "activityType": "COMMENT", "id": entry["id"]}

    payloads = [
        await client.mutate(CREATE_ACTIVITY, **comment, message="other content"),
        await client.mutate(CREATE_TICKET, id=entry["id"]),
    ]

    for payload in payloads:
        assert payload["ticketActivity"] is None
        assert payload["userErrors"] == [
            {
                "code": "ID_TAKEN",
                "message": "The id is in use with other content.",
                "path": ["input", "id"],
                "reasons": [],
            }
        ]


@pytest.mark.parametrize("name", CREATORS)
async def test_guessing_the_content_of_a_hidden_entry_tells_nothing(
    service: Service, author: Client, entry: JSON, name: str
) -> None:
    client = await viewer(service, author, name)
    guesses: list[JSON] = [{"message": "public", "metadata": {"secret": 1}}, {"message": "wrong"}]

    payloads = [
        await client.mutate(
            CREATE_ACTIVITY,
            ticketId=entry["ticketId"],
            activityType="COMMENT",
            id=entry["id"],
            **guess,
        )
        for guess in guesses
    ]

    assert payloads[0] == payloads[1]
    assert payloads[0]["userErrors"][0]["code"] == "ID_TAKEN"


async def test_a_private_entry_of_no_actor_is_seen_with_the_scope_alone(service: Service) -> None:
    moderator = await service.client(*Scope, actor_id=UUID(int=7))
    ticket_id = await moderator.create_ticket()
    entry = await moderator.create_activity(ticket_id, message="hush", isPrivate=True)
    await service.execute("UPDATE ticket_activity SET actor_id = NULL WHERE message = 'hush'")
    others = await service.client(Scope.READ)

    for client, sees in ((moderator, True), (others, False)):
        response = await send(client, LIST, ticketId=ticket_id)
        assert (entry["id"] in response.text) is sees
        assert (await client.find(ticket_id, entry["id"]) is not None) is sees


WHOLE = f"""
query Whole($ticketId: ID!) {{
  ticket(id: $ticketId) {{
    createdAt mergedInto {{ id }}
    activities(first: 100) {{
      nodes {{ ...activityFields revisions {{ nodes {{ version changedAt }} totalCount }} }}
      edges {{ cursor }}
      pageInfo {{ startCursor endCursor hasNextPage hasPreviousPage }}
      totalCount filteredCount
    }}
    byUpdate: activities(first: 1, orderBy: {{field: UPDATED_AT, direction: DESC}}) {{
      nodes {{ id updatedAt }} pageInfo {{ hasNextPage hasPreviousPage }}
    }}
  }}
  ticketActivityChanges(ticketId: $ticketId, first: 100) {{
    nodes {{ changeType activityId changedAt changedById ticketActivity {{ id version }} }}
    pageInfo {{ hasNextPage hasPreviousPage }}
  }}
}}
{ACTIVITY_FIELDS}"""


@pytest.mark.parametrize("name", BLIND)
async def test_nothing_public_moves_when_a_private_entry_does(
    service: Service, author: Client, entry: JSON, name: str
) -> None:
    client = await viewer(service, author, name)
    ticket_id = entry["ticketId"]
    before = (await send(client, WHOLE, ticketId=ticket_id)).json()
    assert "errors" not in before

    for kind in ("COMMENT", "DOCUMENT_UPLOAD", "VIEW"):
        service.clock.advance(seconds=1)
        document = {"documentId": MISSING} if kind == "DOCUMENT_UPLOAD" else {}
        hidden = await author.create_activity(
            ticket_id, activityType=kind, message="hush", isPrivate=True, **document
        )
        if kind != "VIEW":
            await author.put(ticket_id, hidden["id"], {"message": "hush, hush"})
            assert (await send(client, WHOLE, ticketId=ticket_id)).json() == before
            await author.mutate(DELETE, ticketId=ticket_id, activityId=hidden["id"])
        assert (await send(client, WHOLE, ticketId=ticket_id)).json() == before


async def test_a_moderator_who_hides_an_entry_is_told_no_more_of_it(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    id_ = await published(author, ticket_id, PRIVATE_PASTS["hidden and edited"])
    moderator = await viewer(service, author, "a moderator without activity:private")
    mutation = """
    mutation Hide($input: UpdateTicketActivityInput!) {
      updateTicketActivity(input: $input) {
        ticketActivity { message revisions { nodes { message isWithheld } } }
        userErrors { code }
      }
    }
    """

    response = await send(
        moderator, mutation, input={"ticketId": ticket_id, "activityId": id_, "isPrivate": True}
    )
    again = await send(
        moderator, mutation, input={"ticketId": ticket_id, "activityId": id_, "message": "mine"}
    )

    assert "hush" not in response.text
    [error] = again.json()["data"]["updateTicketActivity"]["userErrors"]
    assert error == {"code": "NOT_FOUND"}
