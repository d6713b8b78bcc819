"""Sixteen writers that read, add one and write what they read: no success is overwritten."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.service import JSON, UPDATE, Client, Service

WRITERS = 16
SUCCESSES_EACH = 3

Attempt = Callable[[Client, JSON], Awaitable[bool]]


async def through_graphql(client: Client, entry: JSON) -> bool:
    current = await client.find(entry["ticketId"], entry["id"])
    assert current is not None
    payload = await client.mutate(
        UPDATE,
        ticketId=entry["ticketId"],
        activityId=entry["id"],
        metadata={"count": current["metadata"]["count"] + 1},
        expectedVersion=current["version"],
    )
    codes = [error["code"] for error in payload["userErrors"]]
    assert codes in ([], ["VERSION_CONFLICT"])
    return codes == []


async def through_rest(client: Client, entry: JSON) -> bool:
    current = await client.get(entry["ticketId"], entry["id"])
    response = await client.put(
        entry["ticketId"],
        entry["id"],
        {"metadata": {"count": current.json()["metadata"]["count"] + 1}},
        **{"If-Match": current.headers["ETag"]},
    )
    assert response.status_code in (200, 412)
    return response.status_code == 200


async def through_either(client: Client, entry: JSON) -> bool:
    return await through_graphql(client, entry) or await through_rest(client, entry)


async def write(attempt: Attempt, client: Client, entry: JSON) -> None:
    for _ in range(SUCCESSES_EACH):
        while not await attempt(client, entry):
            pass


@pytest.mark.parametrize("attempt", [through_graphql, through_rest, through_either])
async def test_every_success_counts(service: Service, attempt: Attempt) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, metadata={"count": 0})

    await asyncio.gather(*(write(attempt, author, entry) for _ in range(WRITERS)))

    after = await author.find(ticket_id, entry["id"])
    assert after is not None
    assert after["metadata"] == {"count": WRITERS * SUCCESSES_EACH}
    assert after["version"] == 1 + WRITERS * SUCCESSES_EACH
    assert [seq for seq, *_ in await service.history(ticket_id)] == list(
        range(1, 3 + WRITERS * SUCCESSES_EACH)
    )
