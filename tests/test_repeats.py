"""Requests that are sent again without an idempotency key, because the answer was lost."""

from typing import Any

import pytest

from app.auth import Scope
from tests.support.service import JSON, UPDATE, Client, Service
from tests.test_delete import codes, delete


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(
        await author.create_ticket(), message="0", metadata={"a": {"b": 1}, "c": 2}
    )


async def update(client: Client, entry: JSON, **more: Any) -> JSON:
    return await client.mutate(
        UPDATE, **{"ticketId": entry["ticketId"], "activityId": entry["id"]} | more
    )


async def versions(service: Service, entry: JSON) -> list[int]:
    history = await service.history(entry["ticketId"])
    return [version for _, id_, version, _ in history if id_ == entry["id"]]


CHANGES = pytest.mark.parametrize(
    "change",
    [
        {"message": "1"},
        {"message": None},
        {"isPrivate": True},
        {"message": "1", "isPrivate": True},
        {"message": "1", "metadata": {"c": 2, "a": {"b": 1}}, "isPrivate": True},
        {"message": "1", "metadataPatch": {"c": 2}},
    ],
    ids=str,
)


@CHANGES
async def test_a_guarded_update_sent_again_succeeds_and_leaves_no_trace(
    service: Service, author: Client, entry: JSON, change: JSON
) -> None:
    first = await update(author, entry, **change, expectedVersion=1)

    again = await update(author, entry, **change, expectedVersion=1)

    assert first["userErrors"] == []
    assert again == first
    assert await versions(service, entry) == [1, 2]


async def test_a_guarded_put_sent_again_is_answered_as_the_first_one(
    service: Service, author: Client, entry: JSON
) -> None:
    """Legacy clients put back everything that they read."""
    body = {"message": "1", "isPrivate": True, "metadata": entry["metadata"]}

    first, again = [
        await author.put(entry["ticketId"], entry["id"], body, **{"If-Match": '"1"'})
        for _ in range(2)
    ]

    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["ETag"] == first.headers["ETag"] == '"2"'
    assert await versions(service, entry) == [1, 2]


async def test_other_content_conflicts(service: Service, author: Client, entry: JSON) -> None:
    await update(author, entry, message="1", expectedVersion=1)

    assert codes(await update(author, entry, message="2", expectedVersion=1)) == [
        "VERSION_CONFLICT"
    ]
    assert codes(await update(author, entry, expectedVersion=1)) == ["VERSION_CONFLICT"]
    assert await versions(service, entry) == [1, 2]


async def test_the_same_content_of_another_actor_conflicts(
    service: Service, author: Client, entry: JSON
) -> None:
    other = await service.client(*Scope)
    await update(author, entry, message="1", expectedVersion=1)

    assert codes(await update(other, entry, message="1", expectedVersion=1)) == ["VERSION_CONFLICT"]


@pytest.mark.parametrize("change", [{"metadata": {"n": 1}}, {"metadataPatch": {"n": 1}}], ids=str)
async def test_metadata_conflicts_since_programs_count_in_it(
    author: Client, entry: JSON, change: JSON
) -> None:
    first, again = [await update(author, entry, **change, expectedVersion=1) for _ in range(2)]
    text = {"message": "1", **change}
    with_text = [await update(author, entry, **text, expectedVersion=2) for _ in range(2)]

    assert (codes(first), codes(again)) == ([], ["VERSION_CONFLICT"])
    assert [codes(payload) for payload in with_text] == [[], []]


async def test_after_a_later_change_it_conflicts(author: Client, entry: JSON) -> None:
    await update(author, entry, message="1", expectedVersion=1)
    await update(author, entry, metadata={}, expectedVersion=2)

    assert codes(await update(author, entry, message="1", expectedVersion=1)) == [
        "VERSION_CONFLICT"
    ]


async def test_a_new_entry_is_not_taken_for_an_update(author: Client, entry: JSON) -> None:
    assert codes(await update(author, entry, message="0", expectedVersion=0)) == [
        "VERSION_CONFLICT"
    ]


@pytest.mark.parametrize("expected", [{}, {"expectedVersion": 1}])
async def test_a_deletion_sent_again_by_its_actor_succeeds(
    service: Service, author: Client, entry: JSON, expected: JSON
) -> None:
    first, again = [await delete(author, entry, **expected) for _ in range(2)]

    assert (
        first
        == again
        == {
            "deletedTicketActivityId": entry["id"],
            "ticketActivity": None,
            "userErrors": [],
        }
    )
    assert await versions(service, entry) == [1, 2]


async def test_a_deletion_by_others_or_of_another_version_finds_nothing(
    service: Service, author: Client, entry: JSON
) -> None:
    moderator = await service.client(*Scope)
    await delete(author, entry)

    assert codes(await delete(moderator, entry)) == ["NOT_FOUND"]
    assert codes(await delete(author, entry, expectedVersion=2)) == ["NOT_FOUND"]
    assert codes(await update(author, entry, message="1")) == ["NOT_FOUND"]


async def test_who_may_no_longer_delete_finds_nothing(
    service: Service, author: Client, entry: JSON
) -> None:
    hidden = await author.create_activity(entry["ticketId"], message="x", isPrivate=True)
    moderator = await service.client(*Scope)
    reader = await service.client(Scope.READ, actor_id=author.actor_id)
    blind = await service.client(Scope.READ, Scope.MODERATE, actor_id=moderator.actor_id)
    await delete(author, entry)
    await delete(moderator, hidden)

    assert codes(await delete(reader, entry)) == ["NOT_FOUND"]
    assert codes(await delete(blind, hidden)) == ["NOT_FOUND"]
    assert codes(await delete(moderator, hidden)) == []
