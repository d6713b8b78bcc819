"""Importers give entries their true times and actors; the history keeps when they were written."""

from typing import Any
from uuid import uuid4

import pytest

from app.auth import Scope
from tests.support.live import feed
from tests.support.service import CREATE_ACTIVITY, CREATE_TICKET, JSON, UPDATE, Client, Service

CREATED, UPDATED = "2021-03-04T05:06:07.089Z", "2022-03-04T05:06:07.089Z"
NOW, LATER = "2026-11-23T15:07:05.514Z", "2026-11-23T15:07:05.515Z"
ACTOR = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
PAST = {"createdAt": CREATED, "updatedAt": UPDATED, "actorId": ACTOR}
LOOK = """
query Look($id: ID!) {
  ticket(id: $id) {
    createdAt
    activities(first: 100) {
      nodes {
        id createdAt updatedAt actorId updatedById isEdited
        revisions(first: 10) { nodes { version changedAt changedById recordedAt recordedById } }
      }
    }
  }
}
"""


@pytest.fixture
async def importer(service: Service) -> Client:
    return await service.client(Scope.READ, Scope.MODERATE)


async def look(client: Client, ticket_id: str) -> JSON:
    document = await client.graphql(LOOK, id=ticket_id)
    assert "errors" not in document, document
    found: JSON = document["data"]["ticket"]
    return found


async def create(client: Client, ticket_id: str, **fields: Any) -> JSON:
    return await client.mutate(
        CREATE_ACTIVITY, **{"ticketId": ticket_id, "activityType": "COMMENT"} | fields
    )


async def test_an_entry_has_the_times_and_the_actor_that_the_importer_gives(
    importer: Client,
) -> None:
    ticket_id = await importer.create_ticket()

    payload = await create(importer, ticket_id, **PAST)

    [node, _opened] = (await look(importer, ticket_id))["activities"]["nodes"]
    assert payload["userErrors"] == []
    assert node == {
        "id": payload["ticketActivity"]["id"],
        "createdAt": CREATED,
        "updatedAt": UPDATED,
        "actorId": ACTOR,
        "updatedById": ACTOR,
        "isEdited": True,
        "revisions": {
            "nodes": [
                {
                    "version": 1,
                    "changedAt": UPDATED,
                    "changedById": ACTOR,
                    "recordedAt": NOW,
                    "recordedById": str(importer.actor_id),
                }
            ]
        },
    }


async def test_a_ticket_has_them_too(importer: Client) -> None:
    ticket_id = await importer.create_ticket(**PAST)

    found = await look(importer, ticket_id)

    [node] = found["activities"]["nodes"]
    assert found["createdAt"] == CREATED
    assert (node["createdAt"], node["updatedAt"], node["actorId"]) == (CREATED, UPDATED, ACTOR)
    assert node["revisions"]["nodes"][0]["recordedAt"] == NOW


async def test_what_is_not_given_is_now_and_the_viewer(importer: Client) -> None:
    ticket_id = await importer.create_ticket()

    created = (await create(importer, ticket_id, createdAt=CREATED))["ticketActivity"]
    nobody = (await create(importer, ticket_id, actorId=None))["ticketActivity"]

    assert (created["createdAt"], created["updatedAt"]) == (CREATED, CREATED)
    assert (created["actorId"], created["isEdited"]) == (str(importer.actor_id), False)
    assert (nobody["createdAt"], nobody["actorId"], nobody["updatedById"]) == (NOW, None, None)
    nodes = (await look(importer, ticket_id))["activities"]["nodes"]
    [mine] = [node for node in nodes if node["id"] == created["id"]]
    assert mine["revisions"]["nodes"][0]["recordedById"] == str(importer.actor_id)


async def test_other_revisions_were_recorded_when_they_were_made(author: Client) -> None:
    ticket_id = await author.create_ticket()

    [node] = (await look(author, ticket_id))["activities"]["nodes"]

    [revision] = node["revisions"]["nodes"]
    assert revision["recordedAt"] == revision["changedAt"] == NOW
    assert revision["recordedById"] == revision["changedById"] == str(author.actor_id)


async def test_an_imported_entry_is_edited_as_any_other(service: Service, importer: Client) -> None:
    actor = await service.client(actor_id=uuid4())
    ticket_id = await importer.create_ticket()
    entry = (await create(importer, ticket_id, **PAST | {"actorId": str(actor.actor_id)}))[
        "ticketActivity"
    ]
    service.clock.advance(milliseconds=1)

    payload = await actor.mutate(
        UPDATE, ticketId=ticket_id, activityId=entry["id"], message="mine", expectedVersion=1
    )

    assert payload["userErrors"] == []
    assert (payload["ticketActivity"]["createdAt"], payload["ticketActivity"]["updatedAt"]) == (
        CREATED,
        LATER,
    )
    changes = (await feed(actor, ticket_id))["nodes"]
    assert [change["changeType"] for change in changes] == ["ADDED", "ADDED", "UPDATED"]


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        (
            {"createdAt": LATER},
            "createdAt",
            f"createdAt is {LATER}, which is in the future: it is {NOW}.",
        ),
        (
            {"createdAt": CREATED, "updatedAt": "9999-12-31T23:59:59Z"},
            "updatedAt",
            f"updatedAt is 9999-12-31T23:59:59.000Z, which is in the future: it is {NOW}.",
        ),
        (
            {"createdAt": UPDATED, "updatedAt": CREATED},
            "updatedAt",
            f"updatedAt is {CREATED}, which is before createdAt, {UPDATED}.",
        ),
        (
            {"updatedAt": CREATED},
            "updatedAt",
            f"updatedAt is {CREATED}, which is before createdAt, {NOW}.",
        ),
        ({"createdAt": None}, "createdAt", "createdAt must not be null; leave it out instead."),
        ({"updatedAt": None}, "updatedAt", "updatedAt must not be null; leave it out instead."),
    ],
    ids=str,
)
async def test_times_that_cannot_be_are_refused(
    service: Service, importer: Client, fields: JSON, name: str, said: str
) -> None:
    ticket_id = await importer.create_ticket()

    payloads = [
        await create(importer, ticket_id, **fields),
        await importer.mutate(CREATE_TICKET, **fields),
    ]

    for payload in payloads:
        assert payload["ticketActivity"] is None
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", name])
        assert error["message"] == said
    assert len(await service.history(ticket_id)) == 1


@pytest.mark.parametrize("fields", [{name: value} for name, value in PAST.items()], ids=str)
async def test_it_needs_the_scope_to_moderate(
    service: Service, author: Client, fields: JSON
) -> None:
    ticket_id = await author.create_ticket()
    if "actorId" in fields:
        fields = {"actorId": str(author.actor_id)}

    payloads = [
        await create(author, ticket_id, **fields),
        await author.mutate(CREATE_TICKET, **fields),
    ]

    for payload in payloads:
        assert payload["userErrors"] == [
            {
                "code": "FORBIDDEN",
                "message": "MISSING_SCOPE: the token lacks the scope activity:moderate.",
                "path": ["input", next(iter(fields))],
                "reasons": ["MISSING_SCOPE"],
            }
        ]
    assert len(await service.history(ticket_id)) == 1


async def test_the_same_import_again_is_a_retry(service: Service, importer: Client) -> None:
    ticket_id = await importer.create_ticket()
    fields = PAST | {"id": str(uuid4()), "message": "kept"}
    first = await create(importer, ticket_id, **fields)
    service.clock.advance(days=1)

    again = await create(importer, ticket_id, **fields)
    others = [
        await create(importer, ticket_id, **fields | {"createdAt": "2021-03-04T05:06:07.088Z"}),
        await create(importer, ticket_id, **fields | {"actorId": None}),
    ]

    assert (again, first["userErrors"]) == (first, [])
    assert [payload["userErrors"][0]["code"] for payload in others] == ["ID_TAKEN"] * 2
    assert len(await service.history(ticket_id)) == 2


async def test_a_retry_tells_nothing_of_an_entry_that_was_hidden_since(
    service: Service, importer: Client
) -> None:
    actor = await service.client(actor_id=uuid4())
    ticket_id = await importer.create_ticket()
    fields = {"id": str(uuid4()), "message": "open", "actorId": str(actor.actor_id)}
    entry = (await create(importer, ticket_id, **fields))["ticketActivity"]
    await actor.put(ticket_id, entry["id"], {"message": "hush", "isPrivate": True})

    payloads = [
        await create(importer, ticket_id, **fields),
        await create(importer, ticket_id, **fields | {"message": "a guess"}),
    ]

    assert payloads[0] == payloads[1]
    assert payloads[0]["userErrors"][0]["code"] == "ID_TAKEN"
    assert "hush" not in str(payloads)


async def test_times_of_the_ticket_do_not_go_back(service: Service, importer: Client) -> None:
    """The clock steps back: the next change is stamped with what was recorded last."""
    ticket_id = await importer.create_ticket()
    service.clock.advance(seconds=10)
    await create(importer, ticket_id, createdAt=CREATED)
    service.clock.advance(seconds=-20)

    entry = (await create(importer, ticket_id))["ticketActivity"]

    assert entry["createdAt"] == "2026-11-23T15:07:15.514Z"
