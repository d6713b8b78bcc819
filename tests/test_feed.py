"""The feed as a query: in order, page by page, as each viewer sees it."""

import asyncio
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session

from app.activity.commands import RedactActivity, UpdateActivity
from app.auth import Scope, Viewer
from app.store import feed as store_feed
from app.store.history import load_news
from tests.support.cursors import seq_of
from tests.support.live import STATE, feed, follow, receive, web_socket
from tests.support.service import JSON, Client, Service

DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""

REDACT = """
mutation Redact($input: RedactTicketActivityInput!) {
  redactTicketActivity(input: $input) { userErrors { code } }
}
"""

FOLLOW_MESSAGES = """
subscription Follow($ticketId: ID!) {
  ticketActivityChanges(ticketId: $ticketId) { cursor change { ticketActivity { message } } }
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


async def test_a_cursor_of_another_ticket_has_expired(service: Service) -> None:
    author = await service.client()
    one, two = await author.create_ticket(), await author.create_ticket()
    await author.create_activity(two)
    cursor = (await feed(author, two))["pageInfo"]["endCursor"]

    assert await refused(author, one, cursor) == "CURSOR_EXPIRED"


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


# What this process commits, and others


async def test_what_this_process_commits_is_delivered_without_a_read(
    service: Service, origin: str, author: Client
) -> None:
    timeline = service.app.state.timeline
    reads, viewer = timeline.reader.batch_sizes, viewer_of(author)
    entries = [await author.create_activity(await author.create_ticket()) for _ in range(5)]
    async with web_socket(origin, author.token) as ws:
        for number, entry in enumerate(entries):
            await follow(ws, str(number), FOLLOW_MESSAGES, ticketId=entry["ticketId"])
        before = sum(reads.counts)
        for entry in entries * 4:
            key = UUID(entry["ticketId"]), UUID(entry["id"])
            await timeline.submit(viewer, UpdateActivity(*key, message=str(uuid4())))
        received = [await receive(ws) for _ in entries * 4]

    assert {message["id"] for message in received} == {"0", "1", "2", "3", "4"}
    assert sum(reads.counts) - before <= 2  # of the last ticket to be followed, and of the token


@pytest.mark.sqlite  # on PostgreSQL a read that is held up holds up the event loop
async def test_what_is_committed_during_a_read_of_the_feed_comes_after_what_it_finds(
    service: Service, origin: str, author: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redaction is read; what follows it is not the next change until then."""
    moderator = await service.client(*Scope)
    is_reading, may_go_on = threading.Event(), threading.Event()

    def wait_and_read(session: Session, after: dict[UUID, int]) -> Any:
        news = load_news(session, after=after)
        is_reading.set()
        assert may_go_on.wait(10)
        return news

    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="secret")
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id)
        monkeypatch.setattr(store_feed, "load_news", wait_and_read)
        await redact(moderator, entry)
        assert await asyncio.to_thread(is_reading.wait, 10)
        await author.put(ticket_id, entry["id"], {"message": "new"})
        other = await author.create_activity(ticket_id)
        may_go_on.set()
        received = [await receive(ws) for _ in range(3)]

    changes = [message["payload"]["data"]["ticketActivityChanges"] for message in received]
    assert [seq_of(service, ticket_id, change["cursor"]) for change in changes] == [3, 4, 5]
    assert changes[0]["change"]["ticketActivity"]["message"] is None
    assert changes[2]["change"]["activityId"] == other["id"]


async def test_what_is_redacted_in_the_same_commit_is_told_to_nobody(
    service: Service, origin: str, author: Client
) -> None:
    """The update still held in memory what its row holds no more."""
    timeline, viewer = service.app.state.timeline, viewer_of(await service.client(*Scope))
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="one")
    key = UUID(ticket_id), UUID(entry["id"])
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id)
        await timeline.submit_all(
            viewer,
            [UpdateActivity(*key, message="secret"), RedactActivity(*key, reason="a password")],
        )
        received = [await receive(ws) for _ in range(2)]

    changes = [message["payload"]["data"]["ticketActivityChanges"] for message in received]
    assert [seq_of(service, ticket_id, change["cursor"]) for change in changes] == [3, 4]
    told = [change["change"]["ticketActivity"]["message"] for change in changes]
    assert told == [None, None]


def viewer_of(client: Client) -> Viewer:
    return Viewer(client.actor_id, "test", frozenset(Scope), "test")


async def redact(client: Client, entry: JSON) -> None:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    payload = await client.mutate(REDACT, **ids, reason="a password")
    assert payload["userErrors"] == []
