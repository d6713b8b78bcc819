"""The feed as a query: in order, page by page, as each viewer sees it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import Session

from app.auth import Scope
from app.store import feed as store_feed
from app.store.engine import Database
from app.store.history import load_news
from tests.support.cursors import seq_of
from tests.support.live import STATE, feed, follow, receive, web_socket
from tests.support.service import JSON, Client, Service

DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""


async def delete(client: Client, entry: JSON) -> None:
    payload = await client.mutate(DELETE, ticketId=entry["ticketId"], activityId=entry["id"])
    assert payload["userErrors"] == []


def told(page: JSON) -> list[tuple[str, str, str | None]]:
    """The changes as (type, entry, message)."""
    return [
        (node["changeType"], node["activityId"], (node["ticketActivity"] or {}).get("message"))
        for node in page["nodes"]
    ]


async def test_changes_come_in_order_with_what_each_left(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket(message="opened")
    entry = await author.create_activity(ticket_id, message="one")
    await author.put(ticket_id, entry["id"], {"message": "two"})

    page = await feed(author, ticket_id)

    seqs = [seq_of(service, ticket_id, node["cursor"]) for node in page["nodes"]]
    assert seqs == [1, 2, 3]
    assert [kind for kind, _, _ in told(page)] == ["ADDED", "ADDED", "UPDATED"]
    assert [message for _, _, message in told(page)] == ["opened", "one", "two"]
    assert [node["ticketActivity"]["version"] for node in page["nodes"]] == [1, 1, 2]
    assert page["nodes"][2]["changedById"] == str(author.actor_id)


async def test_of_a_deleted_entry_the_feed_tells_only_that_it_is_gone(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="secret")
    await delete(author, entry)

    page = await feed(author, ticket_id)

    assert told(page)[1:] == [("REMOVED", entry["id"], None)]
    assert page["nodes"][1]["ticketActivity"] is None
    assert page["nodes"][1]["changedById"] is None


async def test_pages_follow_each_other_without_gap_or_repeat(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    for number in range(12):
        await author.create_activity(ticket_id, message=str(number))
    whole = told(await feed(author, ticket_id))

    found, after = [], None
    for size in (0, 1, 5, 5, 5, 5):
        page = await feed(author, ticket_id, after, size)
        found += told(page)
        assert len(page["nodes"]) <= size
        after = page["pageInfo"]["endCursor"]

    assert found == whole
    assert len(whole) == 13
    assert page["pageInfo"] == {"endCursor": after, "hasNextPage": False}


async def test_the_end_of_the_feed_is_the_cursor_of_the_ticket(service: Service) -> None:
    author, other = await service.client(), await service.client()
    ticket_id = await author.create_ticket()
    await author.create_activity(ticket_id, isPrivate=True)

    for client in (author, other):
        state = (await client.graphql(STATE, id=ticket_id))["data"]["ticket"]
        page = await feed(client, ticket_id)
        ends = page["pageInfo"]["endCursor"], state["changesCursor"]
        assert [seq_of(service, ticket_id, end) for end in ends] == [2, 2]
        assert told(await feed(client, ticket_id, state["changesCursor"])) == []


@pytest.mark.parametrize("after", ["", "x", "Y2hhbmdlcw==", "é"])
async def test_a_cursor_that_is_none_is_invalid(service: Service, after: str) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()

    assert await refused(author, ticket_id, after) == "INVALID_INPUT"


async def test_a_cursor_of_another_ticket_or_of_the_future_is_invalid(service: Service) -> None:
    author = await service.client()
    one, two = await author.create_ticket(), await author.create_ticket()
    await author.create_activity(two)
    cursor = (await feed(author, two))["pageInfo"]["endCursor"]

    assert await refused(author, one, cursor) == "INVALID_INPUT"


async def test_the_feed_of_no_ticket_is_not_found(service: Service) -> None:
    author = await service.client()

    assert await refused(author, str(author.actor_id), None) == "NOT_FOUND"


async def refused(client: Client, ticket_id: str, after: str | None) -> str:
    query = """query Q($ticketId: ID!, $after: String) {
        ticketActivityChanges(ticketId: $ticketId, after: $after) { nodes { cursor } } }"""
    [error] = (await client.graphql(query, ticketId=ticket_id, after=after))["errors"]
    return str(error["extensions"]["code"])


# Privacy

ALL = ("ADDED", "UPDATED", "UPDATED", "UPDATED")


@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        # What those learn who do not see private entries, of an entry that was private or not.
        ([False], ["ADDED"]),
        ([True], []),
        ([False, False], ["ADDED", "UPDATED"]),
        ([True, False], ["ADDED"]),
        ([False, True], ["REMOVED"]),
        ([True, True], []),
        ([False, True, False], ["ADDED", "REMOVED", "ADDED"]),
        ([True, False, True], ["REMOVED"]),
        ([True, False, True, False], ["ADDED", "REMOVED", "ADDED"]),
        ([False, True, True, False], ["ADDED", "REMOVED", "ADDED"]),
    ],
)
async def test_each_viewer_is_told_what_that_viewer_sees(
    service: Service, flips: list[bool], expected: list[str]
) -> None:
    author = await service.client()
    read = (Scope.READ, Scope.WRITE)
    viewers = {
        "author": author,
        "same actor": await service.client(Scope.READ, actor_id=author.actor_id),
        "other": await service.client(*read),
        "private": await service.client(*read, Scope.PRIVATE),
        "moderator": await service.client(*read, Scope.MODERATE),
    }
    ticket_id = await author.create_ticket()
    first, *later = flips
    entry = await author.create_activity(ticket_id, message="0", isPrivate=first)
    for number, flip in enumerate(later):
        body = {"isPrivate": flip, "message": str(number + 1)}
        assert (await author.put(ticket_id, entry["id"], body)).status_code == 200

    for name, viewer in viewers.items():
        page = await feed(viewer, ticket_id)
        kinds = [kind for kind, id_, _ in told(page) if id_ == entry["id"]]
        sees_all = name in {"author", "same actor", "private"}
        assert kinds == (list(ALL[: len(flips)]) if sees_all else expected), name
        for node in page["nodes"]:
            assert (node["ticketActivity"] is None) is (node["changeType"] == "REMOVED")


async def test_without_the_scope_to_read_there_is_no_feed(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    writer = await service.client(Scope.WRITE, actor_id=UUID(int=7 << 76 | 2 << 62))

    assert await refused(writer, ticket_id, None) == "FORBIDDEN"


@pytest.mark.sqlite  # on PostgreSQL a read that is held up holds up the event loop
async def test_a_commit_during_a_read_of_the_feed_is_read_next_without_the_watcher(
    service: Service, origin: str, author: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process commits is known to it; the watcher, switched off here, is for others."""
    has_read, may_go_on = threading.Event(), threading.Event()

    @asynccontextmanager
    async def watch_nothing(_: Database) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        yield asyncio.Event().wait  # type: ignore[misc]

    def read_and_wait(session: Session, after: dict[UUID, int]) -> Any:
        news = load_news(session, after=after)
        has_read.set()
        assert may_go_on.wait(10)
        return news

    monkeypatch.setattr(type(service.app.state.timeline.reader.database), "watch", watch_nothing)
    ticket_id = await author.create_ticket()
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id)
        monkeypatch.setattr(store_feed, "load_news", read_and_wait)
        one = await author.create_activity(ticket_id)
        await asyncio.to_thread(has_read.wait, 10)
        two = await author.create_activity(ticket_id)
        may_go_on.set()

        received = [await receive(ws) for _ in range(2)]

    changes = [message["payload"]["data"]["ticketActivityChanges"] for message in received]
    assert [change["change"]["activityId"] for change in changes] == [one["id"], two["id"]]
