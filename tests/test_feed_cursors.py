"""The cursors of a feed are sealed: they say nothing, and nobody can make one."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.activity.cursors import KEY_BYTES, FeedCursors, FeedPosition
from app.activity.values import from_milliseconds, to_milliseconds, utc_now
from app.errors import CursorExpired, InvalidInput
from app.settings import Settings
from app.store.database import open_database
from app.store.migrate import migrate
from tests.support.cursors import seq_of
from tests.support.live import (
    FOLLOW,
    STATE,
    feed,
    receive,
    subscribe,
    web_socket,
)
from tests.support.service import JSON, Client, Service, start

QUERY = """
query Q($ticketId: ID!, $after: String) {
  ticketActivityChanges(ticketId: $ticketId, after: $after) { nodes { cursor } }
}
"""


async def cursor_of(client: Client, ticket_id: str) -> str:
    document = await client.graphql(STATE, id=ticket_id)
    return str(document["data"]["ticket"]["changesCursor"])


def error_of(document: JSON) -> tuple[str, str]:
    [error] = document["errors"]
    return error["extensions"]["code"], error["message"]


async def by_query(origin: str, client: Client, ticket_id: str, after: str) -> tuple[str, str]:
    return error_of(await client.graphql(QUERY, ticketId=ticket_id, after=after))


async def by_web_socket(origin: str, client: Client, ticket_id: str, after: str) -> tuple[str, str]:
    async with web_socket(origin, client.token) as ws:
        await subscribe(ws, ticketId=ticket_id, after=after)
        message = await receive(ws)
        while message["type"] == "next" and "errors" not in message["payload"]:
            message = await receive(ws)
    payload = message["payload"]
    return error_of({"errors": payload} if isinstance(payload, list) else payload)


async def by_last_event_id(
    origin: str, client: Client, ticket_id: str, after: str
) -> tuple[str, str]:
    body = {"query": FOLLOW, "variables": {"ticketId": ticket_id}}
    headers = {
        "Authorization": f"Bearer {client.token}",
        "Accept": "text/event-stream",
        "Last-Event-ID": after,
    }
    async with httpx2.AsyncClient(timeout=10) as http:
        response = await http.post(f"{origin}/graphql", json=body, headers=headers)
    # An expired cursor is told within the stream: clients send a refused request again.
    [data] = re.findall(r"(?m)^(?:data: )?(\{.*)$", response.text)
    return error_of(json.loads(data))


def old(ticket_id: str, seq: int) -> str:
    """A cursor as earlier releases made them."""
    return urlsafe_b64encode(f"changes {UUID(ticket_id).hex} {seq}".encode()).decode()


INVALID = (
    "INVALID_INPUT",
    "after is not a cursor of a feed: give one that the service has sent, whole.",
)
EXPIRED = (
    "CURSOR_EXPIRED",
    "This cursor is of before a restore of the database, or of another ticket: read the timeline "
    "anew, and go on after its changesCursor.",
)


def flipped(cursor: str, at: int) -> str:
    data = bytearray(urlsafe_b64decode(cursor))
    data[at] ^= 1
    return urlsafe_b64encode(data).decode()


FORGED: dict[str, tuple[Callable[[str, str, str], str], tuple[str, str]]] = {
    "of an earlier release": (lambda ticket_id, _cursor, _other: old(ticket_id, 1), EXPIRED),
    "of another ticket": (lambda _id, _cursor, other: other, EXPIRED),
    "with another nonce": (lambda _id, cursor, _other: flipped(cursor, 0), EXPIRED),
    "with another place": (lambda _id, cursor, _other: flipped(cursor, 19), EXPIRED),
    "with another tag": (lambda _id, cursor, _other: flipped(cursor, -1), EXPIRED),
    "cut": (lambda _id, cursor, _other: cursor[:-4], INVALID),
    "with more behind it": (lambda _id, cursor, _other: f"{cursor}AAAA", INVALID),
    "under another key": (
        lambda ticket_id, _cursor, _other: FeedCursors(b"k" * KEY_BYTES).seal(
            UUID(ticket_id), FeedPosition(1, utc_now())
        ),
        EXPIRED,
    ),
    "of zeros": (lambda _id, _cursor, _other: "A" * 56, EXPIRED),
    "with a character that base64 has not": (
        lambda _id, cursor, _other: f"{cursor[:-1]}!",
        INVALID,
    ),
}


@pytest.mark.parametrize("door", [by_query, by_web_socket, by_last_event_id])
@pytest.mark.parametrize("forged", FORGED)
async def test_a_cursor_that_the_service_did_not_make_for_this_feed_is_refused(
    origin: str,
    author: Client,
    forged: str,
    door: Callable[[str, Client, str, str], Awaitable[tuple[str, str]]],
) -> None:
    ticket_id, other = await author.create_ticket(), await author.create_ticket()
    forge, error = FORGED[forged]
    cursor = forge(ticket_id, await cursor_of(author, ticket_id), await cursor_of(author, other))

    assert await door(origin, author, ticket_id, cursor) == error


async def test_a_cursor_of_a_change_that_the_database_has_lost_has_expired(
    settings: Settings,
) -> None:
    """As after a failover to a standby that had not received the last commits."""
    async with start(settings) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        cursors = service.app.state.timeline.cursors
        lost = cursors.seal(UUID(ticket_id), FeedPosition(2, utc_now()))

        code, message = await by_query("", author, ticket_id, lost)

    assert code == "CURSOR_EXPIRED"
    assert message.startswith("The database has lost the change of this cursor: read the timeline")


async def test_a_cursor_neither_shows_nor_compares(service: Service, author: Client) -> None:
    stranger = await service.client()
    ticket_id = await author.create_ticket()
    same = [await cursor_of(stranger, ticket_id) for _ in range(2)]
    ends = [(await feed(stranger, ticket_id))["pageInfo"]["endCursor"] for _ in range(2)]
    for _ in range(300):
        await author.create_activity(ticket_id, isPrivate=True)
    later = [await cursor_of(stranger, ticket_id), (await feed(stranger, ticket_id))["pageInfo"]]

    cursors = [*same, *ends, later[0], later[1]["endCursor"]]
    assert len(set(cursors)) == len(cursors), "none equals another, whether or not it changed"
    assert {len(cursor) for cursor in cursors} == {56}
    assert [seq_of(service, ticket_id, cursor) for cursor in cursors] == [1] * 4 + [301] * 2


async def test_the_beginnings_of_two_streams_do_not_compare(origin: str, author: Client) -> None:
    ticket_id = await author.create_ticket()
    begun = []
    async with web_socket(origin, author.token) as ws:
        for number in range(3):
            await subscribe(ws, id_=str(number), ticketId=ticket_id)
            begun.append((await receive(ws))["payload"]["data"]["ticketActivityChanges"]["cursor"])

    assert len(set(begun)) == 3


async def test_processes_on_one_database_share_the_key(settings: Settings) -> None:
    async with start(settings) as one, start(settings) as other:
        author = await one.client()
        ticket_id = await author.create_ticket()
        cursor = await cursor_of(author, ticket_id)
        await author.create_activity(ticket_id, message="after it")
        elsewhere = Client(other.http, author.actor_id, author.token)

        page = await feed(elsewhere, ticket_id, cursor)

        assert [node["ticketActivity"]["message"] for node in page["nodes"]] == ["after it"]


async def test_a_cursor_outlives_a_restart(settings: Settings) -> None:
    async with start(settings) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        cursor = await cursor_of(author, ticket_id)
    async with start(settings) as service:
        author = Client(service.http, author.actor_id, author.token)

        assert (await feed(author, ticket_id, cursor))["nodes"] == []


async def migrated(file: Path) -> Settings:
    url = f"sqlite+aiosqlite:///{file}"
    database = open_database(url)
    await migrate(database)
    await database.close()
    return Settings(database_url=url)


async def test_every_database_has_a_key_of_its_own(tmp_path: Path) -> None:
    one, other = [await migrated(tmp_path / f"{number}.db") for number in range(2)]
    async with start(one) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        cursor = await cursor_of(author, ticket_id)
    async with start(other) as service:
        author = await service.client()
        await author.create_ticket(id=ticket_id)

        error = await by_query("", author, ticket_id, cursor)

    assert error == EXPIRED


cursors = FeedCursors(b"0123456789abcdef" * 2)


positions = st.builds(
    FeedPosition,
    st.integers(0, 2**63 - 1),
    st.integers(
        to_milliseconds(datetime.min.replace(tzinfo=UTC)),
        to_milliseconds(datetime(6000, 1, 1, tzinfo=UTC)),
    ).map(from_milliseconds),
)


@given(ticket_id=st.uuids(), position=positions)
def test_a_cursor_opens_for_its_ticket_and_for_no_other(
    ticket_id: UUID, position: FeedPosition
) -> None:
    cursor = cursors.seal(ticket_id, position)

    assert cursors.open(ticket_id, cursor) == position
    with pytest.raises(CursorExpired):
        cursors.open(UUID(int=ticket_id.int ^ 1), cursor)


@given(
    text=st.text()
    | st.binary(min_size=42, max_size=42).map(lambda b: urlsafe_b64encode(b).decode())
)
def test_no_text_opens(text: str) -> None:
    with pytest.raises((InvalidInput, CursorExpired)):
        cursors.open(UUID(int=7 << 76), text)
