"""`deleteTicketActivity`: gone from every door, kept in the history, its id in use for good."""

import asyncio
from typing import Any

import pytest
from sqlmodel import col, select

from app.activity.state import ChangeType
from app.auth import Scope
from app.models import TicketActivityChange
from tests.support.service import (
    ACTIVITY_FIELDS,
    CREATE_ACTIVITY,
    CREATE_TICKET,
    JSON,
    MERGE,
    UPDATE,
    Client,
    Service,
    activity_url,
)

DELETE = f"""
mutation Delete($input: DeleteTicketActivityInput!) {{
  deleteTicketActivity(input: $input) {{
    deletedTicketActivityId
    ticketActivity {{ ...activityFields }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

TICKET = """
query Ticket($id: ID!) {
  ticket(id: $id) {
    mergedInto { id }
    activities { nodes { id } totalCount filteredCount }
  }
}
"""

NODES = "query Nodes($id: ID!) { node(id: $id) { id } nodes(ids: [$id, $id]) { id } }"


async def delete(client: Client, entry: JSON, **more: Any) -> JSON:
    return await client.mutate(
        DELETE, **{"ticketId": entry["ticketId"], "activityId": entry["id"]} | more
    )


async def ticket(client: Client, ticket_id: str) -> JSON:
    document = await client.graphql(TICKET, id=ticket_id)
    found: JSON = document["data"]["ticket"]
    return found


def codes(payload: JSON) -> list[str]:
    return [error["code"] for error in payload["userErrors"]]


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(await author.create_ticket(), message="written")


async def test_the_payload_names_what_is_gone(author: Client, entry: JSON) -> None:
    document = await author.graphql(
        DELETE, input={"ticketId": entry["ticketId"], "activityId": entry["id"]}
    )

    assert document == {
        "data": {
            "deleteTicketActivity": {
                "deletedTicketActivityId": entry["id"],
                "ticketActivity": None,
                "userErrors": [],
            }
        }
    }


async def test_a_deleted_entry_is_gone_from_list_and_counts(author: Client, entry: JSON) -> None:
    assert entry["id"] in str(await ticket(author, entry["ticketId"]))

    await delete(author, entry)

    activities = (await ticket(author, entry["ticketId"]))["activities"]
    assert entry["id"] not in str(activities)
    assert (activities["totalCount"], activities["filteredCount"]) == (1, 1)


async def test_a_deleted_entry_is_gone_from_every_look_up(author: Client, entry: JSON) -> None:
    await delete(author, entry)

    document = await author.graphql(NODES, id=entry["id"])

    assert document == {"data": {"node": None, "nodes": [None, None]}}
    assert await author.find(entry["ticketId"], entry["id"]) is None


@pytest.mark.parametrize("scopes", [[], [*Scope]], ids=["its author", "all scopes"])
async def test_a_deleted_entry_is_not_found_by_the_rest_door(
    service: Service, author: Client, entry: JSON, scopes: list[Scope]
) -> None:
    await delete(author, entry)
    client = await service.client(*scopes, actor_id=author.actor_id)
    url = activity_url(entry["ticketId"], entry["id"])

    responses = [
        await client.get(entry["ticketId"], entry["id"]),
        await client.get(entry["ticketId"], entry["id"], **{"If-None-Match": '"2"'}),
        await client.put(entry["ticketId"], entry["id"], {"message": "again"}),
        await client.put(entry["ticketId"], entry["id"], {}, **{"If-Match": '"1"'}),
        await client.request("HEAD", url),
    ]

    assert [response.status_code for response in responses] == [404] * 5
    assert {response.json()["code"] for response in responses[:4]} == {"NOT_FOUND"}


async def test_the_history_keeps_what_was_deleted(
    service: Service, author: Client, entry: JSON
) -> None:
    service.clock.advance(seconds=1)

    await delete(author, entry)

    history = await service.history(entry["ticketId"])
    assert history[1:] == [(2, entry["id"], 1, "written"), (3, entry["id"], 2, "written")]
    change_type, changed_at, changed_by_id = await service.database.read(
        lambda session: (
            session.exec(
                select(
                    TicketActivityChange.change_type,
                    TicketActivityChange.changed_at,
                    TicketActivityChange.changed_by_id,
                ).order_by(col(TicketActivityChange.seq).desc())
            ).first()
            or pytest.fail("there is no change")
        )
    )
    assert change_type is ChangeType.REMOVED
    assert changed_at == service.clock()
    assert changed_by_id == author.actor_id


async def test_a_deletion_is_guarded_by_the_version(author: Client, entry: JSON) -> None:
    await author.put(entry["ticketId"], entry["id"], {"message": "newer"})
    current = await author.find(entry["ticketId"], entry["id"])

    payload = await delete(author, entry, expectedVersion=1)

    assert payload == {
        "deletedTicketActivityId": None,
        "ticketActivity": current,
        "userErrors": [
            {
                "code": "VERSION_CONFLICT",
                "message": "The activity is at version 2, not at the expected one; "
                "look at it before you send your change for this version.",
                "path": ["input", "expectedVersion"],
                "reasons": [],
            }
        ],
    }
    assert current is not None
    assert current["message"] == "newer"
    assert await author.find(entry["ticketId"], entry["id"]) == current
    assert codes(await delete(author, entry, expectedVersion=2)) == []


async def test_a_null_version_is_refused(author: Client, entry: JSON) -> None:
    payload = await delete(author, entry, expectedVersion=None)

    assert codes(payload) == ["INVALID_INPUT"]
    assert payload["userErrors"][0]["path"] == ["input", "expectedVersion"]
    assert await author.find(entry["ticketId"], entry["id"]) == entry


@pytest.mark.parametrize(
    ("scopes", "is_author", "reasons"),
    [
        ([Scope.READ], True, ["MISSING_SCOPE"]),
        ([Scope.READ], False, ["MISSING_SCOPE", "NOT_AUTHOR"]),
        ([Scope.READ, Scope.WRITE], False, ["NOT_AUTHOR"]),
        ([Scope.READ, Scope.WRITE, Scope.PRIVATE], False, ["NOT_AUTHOR"]),
        ([Scope.WRITE], True, ["MISSING_SCOPE"]),
    ],
)
async def test_who_may_not_delete_is_told_why(
    service: Service,
    author: Client,
    entry: JSON,
    scopes: list[Scope],
    is_author: bool,
    reasons: list[str],
) -> None:
    actor_id = author.actor_id if is_author else None
    client = await service.client(*scopes, actor_id=actor_id)

    payload = await delete(client, entry, expectedVersion=7)

    # The scope to read is asked for before any argument is looked at.
    path = ["input", "activityId"] if Scope.READ in scopes else None
    [error] = payload.pop("userErrors")
    assert payload == {"deletedTicketActivityId": None, "ticketActivity": None}
    assert (error["code"], error["path"]) == ("FORBIDDEN", path)
    assert error["reasons"] == reasons
    assert [part.split(":")[0] for part in error["message"].split("; ")] == reasons
    assert await author.find(entry["ticketId"], entry["id"]) == entry
    assert len(await service.history(entry["ticketId"])) == 2


@pytest.mark.parametrize("activity_type", ["TICKET_CREATED", "VIEW"])
async def test_a_system_entry_is_deleted_by_a_moderator_alone(
    service: Service, author: Client, activity_type: str
) -> None:
    payload = await author.mutate(CREATE_TICKET)
    entry = payload["ticketActivity"]
    if activity_type == "VIEW":
        entry = await author.create_activity(entry["ticketId"], activityType="VIEW")
    moderator = await service.client(Scope.READ, Scope.MODERATE)

    refused = await delete(author, entry)
    accepted = await delete(moderator, entry)

    assert codes(refused) == ["FORBIDDEN"]
    assert refused["userErrors"][0]["message"].startswith("SYSTEM_ENTRY: ")
    assert accepted["deletedTicketActivityId"] == entry["id"]


async def test_what_is_deleted_cannot_be_deleted_or_updated_by_others(
    service: Service, author: Client, entry: JSON
) -> None:
    moderator = await service.client(*Scope)
    await delete(author, entry)
    changes = await service.history(entry["ticketId"])

    again = await delete(moderator, entry)
    guarded = await delete(moderator, entry, expectedVersion=1)
    updated = await author.mutate(
        UPDATE, ticketId=entry["ticketId"], activityId=entry["id"], message="again"
    )

    assert again["deletedTicketActivityId"] is None
    assert [codes(payload) for payload in (again, guarded, updated)] == [["NOT_FOUND"]] * 3
    assert await service.history(entry["ticketId"]) == changes


async def test_a_deletion_answers_for_a_deleted_entry_as_for_one_that_never_was(
    service: Service, author: Client, entry: JSON
) -> None:
    moderator = await service.client(*Scope)
    never = entry | {"id": "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"}
    await delete(author, entry)

    answers = [
        str(await delete(moderator, one)).replace(one["id"], "the id") for one in (entry, never)
    ]

    assert answers[0] == answers[1]


async def test_an_entry_of_another_ticket_is_not_found(author: Client, entry: JSON) -> None:
    payload = await delete(author, entry, ticketId=await author.create_ticket())

    assert codes(payload) == ["NOT_FOUND"]
    assert await author.find(entry["ticketId"], entry["id"]) == entry


async def test_of_two_deletions_at_once_one_succeeds(
    service: Service, author: Client, entry: JSON
) -> None:
    moderators = [await service.client(*Scope) for _ in range(5)]

    payloads = await asyncio.gather(*(delete(moderator, entry) for moderator in moderators))

    assert sorted(map(codes, payloads)) == [[], *[["NOT_FOUND"]] * 4]
    assert len(await service.history(entry["ticketId"])) == 3


async def test_the_id_of_a_deleted_entry_stays_in_use(author: Client, entry: JSON) -> None:
    other = await author.create_ticket()
    await delete(author, entry)

    creations = [
        (CREATE_ACTIVITY, {"ticketId": entry["ticketId"], "message": "written"}),
        (CREATE_ACTIVITY, {"ticketId": entry["ticketId"], "message": "new"}),
        (CREATE_ACTIVITY, {"ticketId": other, "message": "written"}),
        (CREATE_TICKET, {}),
    ]
    for mutation, content in creations:
        kind = {"activityType": "COMMENT"} if mutation is CREATE_ACTIVITY else {}
        payload = await author.mutate(mutation, id=entry["id"], **kind, **content)
        assert codes(payload) == ["ID_TAKEN"]
        assert payload["userErrors"][0]["path"] == ["input", "id"]
        assert payload["ticketActivity"] is None
    assert await author.find(entry["ticketId"], entry["id"]) is None


async def test_deleting_the_merge_entry_undoes_the_merge(service: Service) -> None:
    moderator = await service.client(*Scope)
    ticket_id, target = await moderator.create_ticket(), await moderator.create_ticket()
    merge = (await moderator.mutate(MERGE, sourceId=ticket_id, targetId=target))["mergedInto"]
    assert (await ticket(moderator, ticket_id))["mergedInto"] == {"id": target}

    await delete(moderator, merge)

    assert (await ticket(moderator, ticket_id))["mergedInto"] is None
