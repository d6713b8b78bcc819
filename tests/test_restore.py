"""`restoreTicketActivity`: an earlier version, or a deleted entry, comes back as a new version."""

from typing import Any

import pytest

from app.auth import Scope
from tests.support.live import feed, follow, receive, web_socket
from tests.support.service import ACTIVITY_FIELDS, JSON, MERGE, Client, Service
from tests.test_delete import DELETE
from tests.test_redact import REDACT

RESTORE = f"""
mutation Restore($input: RestoreTicketActivityInput!) {{
  restoreTicketActivity(input: $input) {{
    ticketActivity {{ ...activityFields }}
    ticketActivityEdge {{ node {{ id }} }}
    userErrors {{ code message path reasons }}
  }}
}}
{ACTIVITY_FIELDS}"""
MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"


async def restore(client: Client, entry: JSON, to_version: int, **more: Any) -> JSON:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    return await client.mutate(RESTORE, **ids, toVersion=to_version, **more)


async def edit(client: Client, entry: JSON, **fields: Any) -> None:
    response = await client.put(entry["ticketId"], entry["id"], fields)
    assert response.status_code == 200


async def delete(client: Client, entry: JSON) -> None:
    payload = await client.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])
    assert payload["userErrors"] == []


async def redact(client: Client, entry: JSON) -> None:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    payload = await client.mutate(REDACT, **ids, reason="It was a secret.")
    assert payload["userErrors"] == []


def error_of(payload: JSON) -> tuple[str, list[str] | None, str]:
    assert payload["ticketActivityEdge"] is None
    [error] = payload["userErrors"]
    return error["code"], error["path"], error["message"]


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(Scope.READ, Scope.MODERATE)


@pytest.fixture
async def entry(author: Client) -> JSON:
    """An entry at version 3."""
    entry = await author.create_activity(
        await author.create_ticket(), message="1", metadata={"number": 1}
    )
    await edit(author, entry, message="2", metadata={"number": 2})
    await edit(author, entry, message=None)
    return entry


async def test_an_earlier_version_comes_back_as_a_new_one(
    service: Service, author: Client, entry: JSON
) -> None:
    service.clock.advance(seconds=1)

    payload = await restore(author, entry, 1)

    restored = payload["ticketActivity"]
    assert payload["userErrors"] == []
    assert payload["ticketActivityEdge"] == {"node": {"id": entry["id"]}}
    assert restored == entry | {
        "version": 4,
        "updatedAt": "2026-11-23T15:07:06.514Z",
        "isEdited": True,
    }
    assert await author.find(entry["ticketId"], entry["id"]) == restored
    history = await service.history(entry["ticketId"])
    assert [message for _, _, _, message in history[1:]] == ["1", "2", None, "1"]


async def test_restoring_what_stands_leaves_no_trace(
    service: Service, author: Client, entry: JSON
) -> None:
    current = await author.find(entry["ticketId"], entry["id"])

    payload = await restore(author, entry, 3)

    assert (payload["ticketActivity"], payload["userErrors"]) == (current, [])
    assert len(await service.history(entry["ticketId"])) == 4


@pytest.mark.parametrize("to_version", [1, 3, 4])
async def test_the_author_undoes_their_deletion(
    author: Client, entry: JSON, to_version: int
) -> None:
    await delete(author, entry)

    payload = await restore(author, entry, to_version)

    assert payload["userErrors"] == []
    assert payload["ticketActivity"]["version"] == 5
    assert payload["ticketActivity"]["message"] == ("1" if to_version == 1 else None)
    found = await author.find(entry["ticketId"], entry["id"])
    assert found == payload["ticketActivity"]
    response = await author.get(entry["ticketId"], entry["id"])
    assert response.headers["ETag"] == '"5"'


async def test_followers_and_the_feed_are_told_that_it_is_back(
    origin: str, author: Client, entry: JSON
) -> None:
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=entry["ticketId"])
        await delete(author, entry)
        await restore(author, entry, 2)
        told = [(await receive(ws))["payload"]["data"]["ticketActivityChanges"] for _ in range(2)]

    assert [one["change"]["changeType"] for one in told] == ["REMOVED", "ADDED"]
    assert told[1]["change"]["ticketActivity"]["message"] == "2"
    nodes = (await feed(author, entry["ticketId"]))["nodes"]
    assert [node["changeType"] for node in nodes[-2:]] == ["REMOVED", "ADDED"]


async def test_what_a_moderator_deleted_an_author_cannot_bring_back(
    author: Client, moderator: Client, entry: JSON
) -> None:
    await delete(moderator, entry)

    refused = await restore(author, entry, 1)
    accepted = await restore(moderator, entry, 1)

    assert error_of(refused)[:2] == ("NOT_FOUND", ["input", "activityId"])
    assert accepted["userErrors"] == []


async def test_a_deleted_entry_does_not_exist_for_those_who_may_not_restore_it(
    service: Service, author: Client, entry: JSON
) -> None:
    await delete(author, entry)
    others = [
        await service.client(Scope.READ, Scope.WRITE, Scope.PRIVATE),
        await service.client(Scope.READ, actor_id=author.actor_id),
    ]

    for client in others:
        found = [await restore(client, entry | {"id": id_}, 1) for id_ in (entry["id"], MISSING)]
        texts = [str(one).replace(entry["id"], MISSING) for one in found]
        assert texts[0] == texts[1]
        assert error_of(found[0])[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("scopes", "is_author", "reasons"),
    [
        ([Scope.READ], True, ["MISSING_SCOPE"]),
        ([Scope.READ, Scope.WRITE], False, ["NOT_AUTHOR"]),
    ],
)
async def test_who_may_not_update_may_not_restore(
    service: Service,
    author: Client,
    entry: JSON,
    scopes: list[Scope],
    is_author: bool,
    reasons: list[str],
) -> None:
    client = await service.client(*scopes, actor_id=author.actor_id if is_author else None)

    payload = await restore(client, entry, 1)

    assert error_of(payload)[:2] == ("FORBIDDEN", ["input", "activityId"])
    assert payload["userErrors"][0]["reasons"] == reasons
    assert len(await service.history(entry["ticketId"])) == 4


@pytest.mark.parametrize("to_version", [0, -1, 4, 2**31 - 1])
async def test_a_version_that_is_not_there_is_refused(
    author: Client, entry: JSON, to_version: int
) -> None:
    payload = await restore(author, entry, to_version)

    assert error_of(payload) == (
        "INVALID_INPUT",
        ["input", "toVersion"],
        f"The activity has no version {to_version}; it is at version 3.",
    )


async def test_redacted_versions_cannot_come_back(
    author: Client, moderator: Client, entry: JSON
) -> None:
    await redact(moderator, entry)
    await edit(author, entry, message="harmless")

    for version in (1, 2, 3):
        payload = await restore(author, entry, version)
        assert error_of(payload) == (
            "INVALID_INPUT",
            ["input", "toVersion"],
            f"Version {version} was redacted and cannot come back.",
        )
    assert (await restore(author, entry, 4))["ticketActivity"]["message"] is None
    assert (await restore(author, entry, 5))["ticketActivity"]["message"] == "harmless"


async def test_a_redacted_entry_that_was_deleted_comes_back_bare(
    author: Client, moderator: Client, entry: JSON
) -> None:
    await delete(author, entry)
    await redact(moderator, entry)

    payload = await restore(moderator, entry, 5)

    assert payload["userErrors"] == []
    assert (payload["ticketActivity"]["message"], payload["ticketActivity"]["version"]) == (None, 6)


async def test_a_restoration_is_guarded_by_the_version(author: Client, entry: JSON) -> None:
    current = await author.find(entry["ticketId"], entry["id"])

    payload = await restore(author, entry, 1, expectedVersion=2)

    assert payload["ticketActivity"] == current
    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("VERSION_CONFLICT", ["input", "expectedVersion"])
    assert (await restore(author, entry, 1, expectedVersion=3))["userErrors"] == []
    await delete(author, entry)
    conflict = await restore(author, entry, 1, expectedVersion=4)
    assert (error_of(conflict)[0], conflict["ticketActivity"]) == ("VERSION_CONFLICT", None)


async def test_a_version_comes_back_as_private_as_it_was(
    service: Service, author: Client, entry: JSON
) -> None:
    reader = await service.client(Scope.READ)
    await edit(author, entry, message="hush", isPrivate=True)
    await edit(author, entry, message="open", isPrivate=False)

    payload = await restore(author, entry, 4)

    assert (payload["ticketActivity"]["message"], payload["ticketActivity"]["isPrivate"]) == (
        "hush",
        True,
    )
    assert await reader.find(entry["ticketId"], entry["id"]) is None


async def test_a_version_that_is_withheld_is_not_restored(
    service: Service, author: Client, moderator: Client, entry: JSON
) -> None:
    await edit(author, entry, message="hush", isPrivate=True)
    await edit(author, entry, message="open", isPrivate=False)

    payload = await restore(moderator, entry, 4)

    assert error_of(payload) == (
        "FORBIDDEN",
        ["input", "toVersion"],
        "MISSING_SCOPE: the token lacks the scope activity:private.",
    )
    everything = await service.client(*Scope)
    assert (await restore(everything, entry, 4))["ticketActivity"]["message"] == "hush"


@pytest.mark.parametrize("kind", ["MERGED_INTO", "MERGED_FROM"])
async def test_a_merge_entry_is_not_restored(service: Service, kind: str) -> None:
    moderator = await service.client(*Scope)
    ticket_id, target = await moderator.create_ticket(), await moderator.create_ticket()
    merged = await moderator.mutate(MERGE, sourceId=ticket_id, targetId=target)
    entry = merged["mergedInto" if kind == "MERGED_INTO" else "mergedFrom"]
    await delete(moderator, entry)

    payload = await restore(moderator, entry, 1)

    assert error_of(payload)[:2] == ("INVALID_INPUT", ["input", "activityId"])
    assert await moderator.find(entry["ticketId"], entry["id"]) is None
