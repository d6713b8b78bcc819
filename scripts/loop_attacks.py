"""What `scripts/loop` sends: the GraphQL requests of `loop_requests`, PUT and GET, WebSockets."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx2
from loop_requests import (
    CHANGED,
    CREATE,
    CREATE_TICKET,
    SMALL,
    TICKET,
    UPDATE,
    Body,
    aliased,
    bodies,
    created,
)
from websockets.exceptions import ConnectionClosed

from tests.support.live import FOLLOW, web_socket

ENTRIES: Final = 100
CHANGES: Final = 300
REVISIONS: Final = 10


@dataclass
class Target:
    """The service under attack."""

    origin: str
    token: str
    http: httpx2.AsyncClient

    async def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return await self.http.request(method, path, **options)

    async def post(self, content: bytes) -> httpx2.Response:
        return await self.send(
            "POST", "/graphql", content=content, headers={"Content-Type": "application/json"}
        )


Attack = Callable[[Target, int], Awaitable[str]]
"""Sends a request and returns what came of it. The number makes the document another one."""


def attacks() -> dict[str, Attack]:
    return {name: posted(body) for name, body in bodies().items()} | others() | sockets()


def posted(body: Body) -> Attack:
    async def attack(target: Target, number: int) -> str:
        # A different document each time: the same one would come from a cache.
        content = json.dumps(body | {"query": body["query"] + " " * number}).encode()
        return outcome(await target.post(content))

    return attack


def others() -> dict[str, Attack]:
    return {
        "20 mutations": posted(many_mutations()),
        "PUT of 1 MB of metadata": put({"metadata": {"a": [1] * 340_000}}),
        "PUT of 200,000 decimals": put({"metadata": {"a": [1.5] * 200_000}}),
        "PUT of 60 kB of metadata": put({"metadata": {"a": [1] * 21_000}}),
        "PUT of 60,000 members": put({f"m{n}": n for n in range(60_000)}),
        "PUT of a message of 1 MB": put({"message": "x" * 1_000_000}),
        "PUT of a message of 64 K": put({"message": "É" * 65_000}),
        "PUT of garbage": put_content(b"[" * 1_000_000),
        "PUT of bad UTF-8": put_content(b'"' + b"\xff" * 1_000_000),
        "PUT with long If-Match": put({"message": "x"}, **{"If-Match": '"1",' * 7_500}),
        "GET with long If-None-Match": got({"If-None-Match": 'W/"x",' * 5_000}),
        "GET with 5,000 types accepted": got({"Accept": "a/b;q=0.5," * 3_000}),
        "GET of 8 KB of query": got({}, "/graphql?" + "a=b&" * 2_000),
        "GET of 8 KB of variables": got(
            {}, "/graphql?query=%7B__typename%7D&variables=" + quote("[" * 2_000)
        ),
        "GET of a document": got(
            {}, "/graphql?query=" + quote("{" + " ".join(f"t{n}" for n in range(490)) + "}")
        ),
        "content type of 30 KB": got({"Content-Type": "application/json;a=b" + ";a=b" * 6_000}),
        "token of 30 KB": got({"Authorization": "Bearer " + "x" * 30_000}),
        "500 headers": got({f"x-{n}": "y" for n in range(1_500)}),
        "body in 1-byte chunks": chunked(20_000),
    }


def many_mutations() -> Body:
    fields = aliased("createTicketActivity(input: $input) { userErrors { code } }", 20)
    query = f"mutation M($input: CreateTicketActivityInput!) {{ {fields} }}"
    return created({"a": [[]] * 21_000}) | {"query": query}


def put(body: Any, **headers: str) -> Attack:
    return put_content(json.dumps(body).encode(), **headers)


def put_content(content: bytes, **headers: str) -> Attack:
    async def attack(target: Target, _number: int) -> str:
        path = f"/v1/crm/tickets/{TICKET}/activity/{SMALL}"
        sent = {"Content-Type": "application/json"} | headers
        return outcome(await target.send("PUT", path, content=content, headers=sent))

    return attack


def got(headers: dict[str, str], path: str = "/graphql?query=%7B__typename%7D") -> Attack:
    async def attack(target: Target, _number: int) -> str:
        return outcome(await target.send("GET", path, headers=headers))

    return attack


def chunked(count: int) -> Attack:
    async def attack(target: Target, _number: int) -> str:
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        host, _, port = target.origin.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + b"1\r\n \r\n" * count + b"0\r\n\r\n")
        first = await reader.readline()
        writer.close()
        return first.decode().strip()

    return attack


FOLLOW_LARGE: Final = """
subscription Follow($ticketId: ID!, $after: String) {
  ticketActivityChanges(ticketId: $ticketId, after: $after) {
    cursor change { changeType ticketActivity { id message metadata } } } }
"""


def subscription(id_: object, query: str, after: str | None, ticket: str = CHANGED) -> str:
    payload = {"query": query, "variables": {"ticketId": ticket, "after": after}}
    return json.dumps({"id": str(id_), "type": "subscribe", "payload": payload})


def sockets() -> dict[str, Attack]:
    return {
        "100 subscriptions at once": on_socket(
            [subscription(n, FOLLOW, None) for n in range(100)], 100
        ),
        "100 new subscriptions at once": on_socket(
            [subscription(n, FOLLOW + " " * n, None) for n in range(100)], 100
        ),
        "100 catch-ups at once": caught_up(FOLLOW, 100, 100 * CHANGES),
        "catch-up of large changes": caught_up(FOLLOW_LARGE, 1, CHANGES),
        "catch-up with a text": caught_up(FILTERED, 1, 1),
        "message of 1 MB": on_socket(
            [json.dumps({"type": "ping", "payload": {"a": [1] * 340_000}})], 1
        ),
        "message of 1 MB of decimals": on_socket(
            [json.dumps({"type": "ping", "payload": {"a": [1.5] * 200_000}})], 1
        ),
        "message of garbage": on_socket(["[" * 1_000_000], 1),
        "5,000 pings": on_socket(['{"type":"ping"}'] * 5_000, 5_000),
        "2,000 completes": on_socket(
            ['{"type":"complete","id":"x"}'] * 5_000 + ['{"type":"ping"}'], 1
        ),
        "an id of 1 MB": on_socket([subscription("x" * 900_000, FOLLOW, None)], 1),
    }


FILTERED: Final = FOLLOW.replace("after: $after)", 'after: $after, filter: { text: "é zz" })')


def on_socket(messages: Sequence[str], answers: int) -> Attack:
    """Send messages on one WebSocket and wait for so many answers, or for the end."""

    async def attack(target: Target, _number: int) -> str:
        seen: Counter[str] = Counter()
        async with web_socket(target.origin, target.token, max_size=None) as ws:
            try:
                for message in messages:
                    await ws.send(message)
                for _ in range(answers):
                    seen[json.loads(await ws.recv())["type"]] += 1
            except ConnectionClosed as closed:
                return f"closed {closed.rcvd and closed.rcvd.code}"
        return str(dict(seen))

    return attack


def caught_up(query: str, subscribers: int, events: int) -> Attack:
    async def attack(target: Target, number: int) -> str:
        after = await cursor_at_start(target)
        messages = [subscription(n, query, after) for n in range(subscribers)]
        return await on_socket(messages, events)(target, number)

    return attack


async def cursor_at_start(target: Target) -> str:
    query = f'{{ ticketActivityChanges(ticketId: "{CHANGED}", first: 1) {{ nodes {{ cursor }} }} }}'
    response = await target.post(json.dumps({"query": query}).encode())
    [node] = response.json()["data"]["ticketActivityChanges"]["nodes"]
    return str(node["cursor"])


async def fill(target: Target) -> None:
    """Make the tickets that the requests read."""
    for ticket in (TICKET, CHANGED, SMALL):
        await target.post(encoded(CREATE_TICKET, id=ticket))
    large = {"message": "long text\n" * 6_500, "metadata": {"a": ["long text\n"] * 4_500}}
    medium = {"message": "É" * 5_000, "metadata": {"a": [1] * 1_000}}
    await together([target.post(entry(TICKET, **large)) for _ in range(ENTRIES)])
    await together([target.post(entry(CHANGED, **medium)) for _ in range(CHANGES)])
    await together([target.post(entry(SMALL, id=id_of(n))) for n in range(ENTRIES)])
    for number in range(REVISIONS):
        change = {"ticketId": SMALL, "message": str(number)}
        edits = [encoded(UPDATE, activityId=id_of(n), **change) for n in range(ENTRIES)]
        await together([target.post(edit) for edit in edits])


def id_of(number: int) -> str:
    return f"0190a3f0-0000-7000-8001-{number:012}"


def entry(ticket: str, **fields: Any) -> bytes:
    return encoded(CREATE, ticketId=ticket, activityType="COMMENT", **fields)


def encoded(query: str, **input_: Any) -> bytes:
    return json.dumps({"query": query, "variables": {"input": input_}}).encode()


async def together(requests: Sequence[Awaitable[httpx2.Response]]) -> None:
    limit = asyncio.Semaphore(8)

    async def one(request: Awaitable[httpx2.Response]) -> None:
        async with limit:
            await request

    await asyncio.gather(*map(one, requests))


def outcome(response: httpx2.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return f"{response.status_code}, {response.text[:40]!r}"
    errors = document.get("errors") or []
    codes = {error["extensions"]["code"] for error in errors} if isinstance(errors, list) else ()
    codes = codes or {document.get("code", "")}
    return f"{response.status_code}, {len(response.content):,} bytes {' '.join(sorted(codes))}"
