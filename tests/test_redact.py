"""`redactTicketActivity`: what an entry held is gone for good, and a mark says so."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.auth import Scope
from app.store.sqlite import SqliteDatabase
from tests.support.live import FEED, feed, follow, receive, web_socket
from tests.support.service import (
    ACTIVITY_FIELDS,
    CREATE_ACTIVITY,
    JSON,
    MERGE,
    UPDATE,
    Client,
    Service,
    activity_url,
)
from tests.test_delete import DELETE
from tests.test_filtered_changes import FOLLOW

REDACT = f"""
mutation Redact($input: RedactTicketActivityInput!) {{
  redactTicketActivity(input: $input) {{
    ticketActivity {{
      ...activityFields redaction {{ version redactedAt redactedById reason }}
    }}
    ticketActivityEdge {{ node {{ id }} }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""

LOOK = """
query Look($ticketId: ID!, $activityId: ID!) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    message metadata version isEdited
    redaction { version redactedAt redactedById reason }
    revisions {
      nodes { version changeType message metadata isRedacted isWithheld } totalCount
    }
  }
}
"""
LIST = """
query List($id: ID!, $filter: TicketActivityFilter) {
  ticket(id: $id) {
    activities(first: 100, filter: $filter) {
      nodes { message metadata redaction { reason } revisions { nodes { message metadata } } }
      filteredCount
    }
  }
}
"""
SECRET = "swordfish-4711"
REASON = "It held a password."


async def redact(client: Client, entry: JSON, **more: Any) -> JSON:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    return await client.mutate(REDACT, **ids, **({"reason": REASON} | more))


async def look(client: Client, entry: JSON) -> JSON | None:
    document = await client.graphql(LOOK, ticketId=entry["ticketId"], activityId=entry["id"])
    assert "errors" not in document, document
    found: JSON | None = document["data"]["ticketActivity"]
    return found


async def edit(client: Client, entry: JSON, **fields: Any) -> None:
    response = await client.put(entry["ticketId"], entry["id"], fields)
    assert response.status_code == 200


async def delete(client: Client, entry: JSON) -> None:
    payload = await client.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])
    assert payload["userErrors"] == []


def codes(payload: JSON) -> list[str]:
    return [error["code"] for error in payload["userErrors"]]


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(Scope.READ, Scope.MODERATE)


@pytest.fixture
async def entry(author: Client) -> JSON:
    """An entry that has said a secret in each of its two versions."""
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message=SECRET, metadata={"key": SECRET})
    await edit(author, entry, message=f"{SECRET} again")
    return entry


async def test_the_entry_keeps_nothing_but_a_mark(
    service: Service, moderator: Client, entry: JSON
) -> None:
    service.clock.advance(seconds=1)

    payload = await redact(moderator, entry)

    shown = payload["ticketActivity"]
    mark = {
        "version": 3,
        "redactedAt": "2026-11-23T15:07:06.514Z",
        "redactedById": str(moderator.actor_id),
        "reason": REASON,
    }
    assert payload["userErrors"] == []
    assert payload["ticketActivityEdge"] == {"node": {"id": entry["id"]}}
    assert (shown["message"], shown["metadata"], shown["version"]) == (None, {}, 3)
    assert (shown["redaction"], shown["updatedById"]) == (mark, mark["redactedById"])
    found = await look(moderator, entry)
    assert found is not None
    assert (found["message"], found["metadata"], found["redaction"]) == (None, {}, mark)
    response = await moderator.get(entry["ticketId"], entry["id"])
    assert (response.json()["message"], response.json()["metadata"]) == (None, {})
    assert response.headers["ETag"] == '"3"'


async def test_every_revision_before_it_is_bare(moderator: Client, entry: JSON) -> None:
    await redact(moderator, entry)

    found = await look(moderator, entry)

    assert found is not None
    assert found["revisions"]["totalCount"] == 3
    assert found["revisions"]["nodes"] == [
        {
            "version": version,
            "changeType": change_type,
            "message": None,
            "metadata": {},
            "isRedacted": is_redacted,
            "isWithheld": False,
        }
        for version, change_type, is_redacted in [
            (1, "ADDED", True),
            (2, "UPDATED", True),
            (3, "UPDATED", False),
        ]
    ]


async def test_what_is_said_later_stays_until_it_is_redacted_too(
    author: Client, moderator: Client, entry: JSON
) -> None:
    await redact(moderator, entry)
    await edit(author, entry, message="harmless")
    found = await look(author, entry)
    assert found is not None
    assert (found["message"], found["redaction"]["version"]) == ("harmless", 3)
    assert [node["message"] for node in found["revisions"]["nodes"]] == [None] * 3 + ["harmless"]

    await redact(moderator, entry, reason="That too.")

    found = await look(author, entry)
    assert found is not None
    assert [node["message"] for node in found["revisions"]["nodes"]] == [None] * 5
    assert (found["redaction"]["version"], found["redaction"]["reason"]) == (5, "That too.")
    assert [node["isRedacted"] for node in found["revisions"]["nodes"]] == [True] * 4 + [False]


async def test_redacting_again_leaves_no_trace(
    service: Service, moderator: Client, entry: JSON
) -> None:
    first = await redact(moderator, entry)

    again = await redact(moderator, entry, reason="Another reason.")

    assert again == first
    assert len(await service.history(entry["ticketId"])) == 4


async def test_no_query_finds_what_was_redacted(
    service: Service, moderator: Client, entry: JSON
) -> None:
    everything = await service.client(*Scope)
    before = await queried(everything, entry)
    assert before[0].count(SECRET) > 0

    await redact(moderator, entry)

    for text in await queried(everything, entry):
        assert SECRET not in text


async def queried(client: Client, entry: JSON) -> list[str]:
    ticket_id = entry["ticketId"]
    documents = [
        await look(client, entry),
        await client.graphql(LIST, id=ticket_id),
        (await client.graphql(LIST, id=ticket_id, filter={"text": SECRET}))["data"],
        await feed(client, ticket_id),
        (await client.get(ticket_id, entry["id"])).text,
    ]
    return [str(document) for document in documents]


async def test_a_search_for_it_finds_nothing(moderator: Client, entry: JSON) -> None:
    found = await moderator.graphql(LIST, id=entry["ticketId"], filter={"text": SECRET})
    assert found["data"]["ticket"]["activities"]["filteredCount"] == 1

    await redact(moderator, entry)

    found = await moderator.graphql(LIST, id=entry["ticketId"], filter={"text": SECRET})
    assert found["data"]["ticket"]["activities"] == {"nodes": [], "filteredCount": 0}


# Who may


@pytest.mark.parametrize(
    ("scopes", "is_author", "code"),
    [
        ([Scope.READ, Scope.WRITE], True, "FORBIDDEN"),
        ([Scope.READ, Scope.WRITE, Scope.PRIVATE], False, "FORBIDDEN"),
        ([Scope.READ], False, "FORBIDDEN"),
        ([Scope.MODERATE], False, "FORBIDDEN"),
    ],
)
async def test_it_needs_the_scope_to_moderate(
    service: Service,
    author: Client,
    entry: JSON,
    scopes: list[Scope],
    is_author: bool,
    code: str,
) -> None:
    client = await service.client(*scopes, actor_id=author.actor_id if is_author else None)

    payload = await redact(client, entry)

    missing = Scope.MODERATE if Scope.READ in scopes else Scope.READ
    path = ["input", "activityId"] if Scope.READ in scopes else None
    assert payload["ticketActivity"] is None
    assert payload["userErrors"] == [
        {
            "code": code,
            "message": f"MISSING_SCOPE: the token lacks the scope {missing}.",
            "path": path,
            "reasons": ["MISSING_SCOPE"],
        }
    ]
    found = await look(author, entry)
    assert found is not None
    assert (found["message"], found["version"]) == (f"{SECRET} again", 2)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("", "reason must not be blank."),
        (" \n", "reason must not be blank."),
        ("x" * 1001, "reason has 1001 characters; the limit is 1000."),
        ("a\0b", "reason holds the character NUL (U+0000)."),
    ],
    ids=["empty", "blank", "long", "NUL"],
)
async def test_a_reason_is_needed(
    service: Service, moderator: Client, entry: JSON, reason: str, said: str
) -> None:
    payload = await redact(moderator, entry, reason=reason)

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "reason"])
    assert error["message"] == said
    assert len(await service.history(entry["ticketId"])) == 3


async def test_a_deleted_entry_can_be_redacted(
    service: Service, author: Client, moderator: Client, entry: JSON
) -> None:
    await delete(author, entry)
    seen_before = await feed(author, entry["ticketId"])

    payload = await redact(moderator, entry)

    assert payload == {"ticketActivity": None, "ticketActivityEdge": None, "userErrors": []}
    history = await service.history(entry["ticketId"])
    assert [message for _, _, _, message in history] == [None] * 5
    assert (await feed(author, entry["ticketId"]))["nodes"] == seen_before["nodes"]
    assert await look(moderator, entry) is None
    # For those who may not redact, it does not exist.
    assert codes(await redact(author, entry)) == ["NOT_FOUND"]


async def test_the_reason_given_in_private_stays_private(
    service: Service, author: Client, entry: JSON
) -> None:
    everything = await service.client(*Scope)
    reader = await service.client(Scope.READ)
    await edit(author, entry, isPrivate=True)
    await redact(everything, entry)
    await edit(author, entry, isPrivate=False)

    for client, reason in ((author, REASON), (everything, REASON), (reader, None)):
        found = await look(client, entry)
        assert found is not None
        assert found["redaction"]["reason"] == reason


async def test_a_creation_is_no_retry_of_a_redacted_one(
    author: Client, moderator: Client, entry: JSON
) -> None:
    await redact(moderator, entry)
    fields = {"ticketId": entry["ticketId"], "id": entry["id"], "activityType": "COMMENT"}

    payloads = [
        await author.mutate(CREATE_ACTIVITY, **fields),
        await author.mutate(CREATE_ACTIVITY, **fields, message=SECRET, metadata={"key": SECRET}),
    ]

    assert [codes(payload) for payload in payloads] == [["ID_TAKEN"], ["ID_TAKEN"]]


async def test_a_merge_stands_when_its_entry_is_redacted(service: Service) -> None:
    moderator = await service.client(*Scope)
    ticket_id, target = await moderator.create_ticket(), await moderator.create_ticket()
    entry = (await moderator.mutate(MERGE, sourceId=ticket_id, targetId=target))["mergedInto"]
    said = {"message": SECRET, "metadata": {"ticketId": target, "note": SECRET}}
    url = f"{activity_url(ticket_id, entry['id'])}?allowMerged=true"
    assert (await moderator.request("PUT", url, json=said)).status_code == 200

    payload = await redact(moderator, entry)

    assert payload["ticketActivity"]["metadata"] == {"ticketId": target}
    query = "query Q($id: ID!) { ticket(id: $id) { mergedInto { id } } }"
    document = await moderator.graphql(query, id=ticket_id)
    assert document["data"]["ticket"]["mergedInto"] == {"id": target}
    assert SECRET not in str(await queried(moderator, entry))


# Those who follow


async def test_subscribers_are_told_and_nobody_gets_the_past(
    origin: str, author: Client, moderator: Client, entry: JSON
) -> None:
    document = await author.graphql(FEED, ticketId=entry["ticketId"], first=1)
    start = document["data"]["ticketActivityChanges"]["pageInfo"]["endCursor"]
    async with web_socket(origin, author.token) as ws, web_socket(origin, author.token) as late:
        await follow(ws, ticketId=entry["ticketId"], after=start)
        before = [await change(ws), await change(ws)]
        await redact(moderator, entry)
        told = await change(ws)
        await follow(late, ticketId=entry["ticketId"], after=start)
        replayed = [await change(late) for _ in range(3)]

    assert [one["ticketActivity"]["message"] for one in before] == [SECRET, f"{SECRET} again"]
    assert (told["changeType"], told["ticketActivity"]["message"]) == ("UPDATED", None)
    assert [one["ticketActivity"]["message"] for one in replayed] == [None, None, None]


async def change(ws: Any) -> JSON:
    message = await receive(ws)
    found: JSON = message["payload"]["data"]["ticketActivityChanges"]["change"]
    return found


async def test_an_entry_leaves_the_list_of_its_text_when_it_is_redacted(
    origin: str, author: Client, moderator: Client, entry: JSON
) -> None:
    async with web_socket(origin, author.token) as ws:
        await follow(ws, query=FOLLOW, ticketId=entry["ticketId"], filter={"text": SECRET})
        await redact(moderator, entry)
        told = await change(ws)

    assert (told["changeType"], told["removedTicketActivityId"]) == ("REMOVED", entry["id"])


# What the files hold


def files_of(file: Path) -> bytes:
    return b"".join(
        path.read_bytes()
        for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm"))
        if path.exists()
    )


async def erased(service: Service) -> None:
    """Wait until the service has removed from the files what it redacted."""
    async with asyncio.timeout(10):
        while (await user_version(service)) != 0:  # noqa: ASYNC110, of the file, which has no event
            await asyncio.sleep(0.02)


async def user_version(service: Service) -> int:
    return await service.database.read(
        lambda session: int(
            session.connection().exec_driver_sql("PRAGMA user_version").scalar_one()
        )
    )


@pytest.mark.sqlite
async def test_the_files_hold_nothing_of_it(
    service: Service, author: Client, moderator: Client
) -> None:
    """With pages that were split and filled again, where SQLite leaves copies of rows."""
    ticket_id = await author.create_ticket()
    sizes = [1, 4, 30, 2, 90, 8]
    entries = []
    for begin in range(0, 150, 50):
        entries += await asyncio.gather(
            *(
                author.create_activity(ticket_id, message=SECRET * sizes[number % 6])
                for number in range(begin, begin + 50)
            )
        )
        await asyncio.gather(
            *(
                edit(author, one, message=SECRET * sizes[UUID(one["id"]).int % 6])
                for one in entries[::7]
            )
        )
    assert SECRET.encode() in files_of(service.file)

    await asyncio.gather(*(redact(moderator, one) for one in entries))
    await erased(service)

    assert SECRET.encode() not in files_of(service.file)
    assert REASON.encode() in files_of(service.file)


@pytest.mark.sqlite
async def test_a_reader_delays_the_erasure_and_does_not_prevent_it(
    service: Service, moderator: Client, entry: JSON
) -> None:
    database = service.database
    assert isinstance(database, SqliteDatabase)
    reader = await database.connect_for_reads()
    query = "SELECT count(*) FROM ticket"
    await reader.run(lambda session: session.connection().exec_driver_sql(query).scalar_one())

    await redact(moderator, entry)
    assert SECRET.encode() in files_of(service.file)
    await reader.close()
    await erased(service)

    assert SECRET.encode() not in files_of(service.file)


async def test_updates_go_on_beside_redactions(
    service: Service, author: Client, moderator: Client, entry: JSON
) -> None:
    other = await author.create_activity(entry["ticketId"], message="other")

    await asyncio.gather(
        redact(moderator, entry), *(edit(author, other, message=f"{n}") for n in range(20))
    )

    history = await service.history(entry["ticketId"])
    assert [seq for seq, *_ in history] == list(range(1, len(history) + 1))
    payload = await author.mutate(
        UPDATE, ticketId=entry["ticketId"], activityId=entry["id"], message="x", expectedVersion=2
    )
    assert codes(payload) == ["VERSION_CONFLICT"]
