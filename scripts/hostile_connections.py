"""Attackers that use many connections and few queries, for `scripts/hostile`."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import quote, urlsplit

CROWDS: Final = (
    "anonymous",
    "unopened",
    "bytewise",
    "pipelined",
    "unread",
    "subscribers",
    "variables",
    "filtered",
)
"""Requests without a valid token; WebSockets that never send one; bodies that arrive byte by byte;
requests sent without waiting for answers; streams that are never read; a thousand different
subscriptions to a ticket that is written to; huge lists of variables; and subscriptions that begin
anew with a filter over a long history."""

VIEWER: Final = "{ viewer { id } }"
IDS: Final = "query I($ids: [ID!]!) { nodes(ids: $ids) { id } }"
WRITE: Final = """mutation W($input: UpdateTicketActivityInput!) {
  updateTicketActivity(input: $input) { userErrors { code } } }"""
CURSOR: Final = """query C($id: ID!) { ticketActivityChanges(ticketId: $id, first: 1) {
  pageInfo { endCursor } } }"""
FILTERED: Final = """subscription F($id: ID!, $after: String, $text: String!) {
  ticketActivityChanges(ticketId: $id, after: $after, filter: {text: $text}) {
    cursor change { ticketActivity { message } } } }"""
SUBSCRIPTION: Final = """subscription S%d($id: ID!) { ticketActivityChanges(ticketId: $id) {
  cursor change { ticketActivity { id message actor { name } } } } }"""

_HANDSHAKE: Final = (
    b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)

_LONG: Final = 126
"""Says that two bytes follow with the length of the frame."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Crowd:
    """Connections of one client. `answers` counts what they got."""

    origin: str
    access: str
    ticket_id: str
    entry_id: str
    answers: Counter[str] = field(default_factory=Counter)
    _numbers: "count[int]" = field(default_factory=count)
    _reading: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def run(self, name: str, seconds: float, size: int) -> None:
        """Attack, with so many workers, until the time is over."""
        act: Callable[[], Coroutine[Any, Any, None]] = getattr(self, f"_{name}")
        end = time.monotonic() + seconds
        tasks = [asyncio.create_task(self._repeat(act, end)) for _ in range(size)]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, act: Callable[[], Coroutine[Any, Any, None]], end: float) -> None:
        while time.monotonic() < end:
            try:
                await act()
            except (OSError, asyncio.IncompleteReadError):
                self.answers["cut"] += 1
                await asyncio.sleep(0.01)

    # What a worker does, again and again

    async def _anonymous(self) -> None:
        reader, writer = await self._connect()
        request = self._post(VIEWER, access="wrong")
        for _ in range(100):
            writer.write(request)
            self.answers[await _status(reader)] += 1
        writer.close()

    async def _unopened(self) -> None:
        held = [await self._connect() for _ in range(100)]
        for _reader, writer in held:
            writer.write(_HANDSHAKE)
        for reader, _writer in held:
            self.answers[await _status(reader)] += 1
        _close(held)

    async def _bytewise(self) -> None:
        held = [await self._connect() for _ in range(250)]
        head, body = self._post(VIEWER + " " * 200).split(b"\r\n\r\n")
        for _reader, writer in held:
            writer.write(head + b"\r\n\r\n")
        for byte in body:
            for _reader, writer in held:
                writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        for reader, _writer in held:
            self.answers[await _status(reader)] += 1
        _close(held)

    async def _pipelined(self) -> None:
        reader, writer = await self._connect()
        target = f"/graphql?query={quote(VIEWER)}"
        writer.write(self._request("GET", target) * 1000)
        for _ in range(1000):
            self.answers[await _status(reader)] += 1
        writer.close()

    async def _unread(self) -> None:
        held = [await self._connect() for _ in range(50)]
        variables = {"id": self.ticket_id, "after": await self._cursor(), "text": "."}
        for _reader, writer in held:
            writer.write(self._post(FILTERED, accept="text/event-stream", **variables))
        await asyncio.sleep(1)
        self.answers["unread"] += len(held)
        _close(held)

    async def _subscribers(self) -> None:
        held = [await self._subscribe(100) for _ in range(3)]
        reader, writer = await self._connect()
        for number in range(50):
            input_ = {"ticketId": self.ticket_id, "activityId": self.entry_id}
            writer.write(self._post(WRITE, input=input_ | {"message": f"{number} {time.time()}"}))
            self.answers[await _status(reader)] += 1
        writer.close()
        _close(held)

    async def _variables(self) -> None:
        reader, writer = await self._connect()
        writer.write(self._post(IDS, ids=["x"] * 200_000))
        await writer.drain()
        self.answers[await _status(reader)] += 1
        writer.close()

    async def _filtered(self) -> None:
        variables = {"id": self.ticket_id, "after": await self._cursor(), "text": "zeppelin ."}
        reader, writer = await self._connect()
        writer.write(self._post(FILTERED, accept="text/event-stream", **variables))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while await reader.read(65_536):
                    self.answers["read"] += 1
        writer.close()

    # How

    async def _connect(self) -> Connection:
        address = urlsplit(self.origin)
        return await asyncio.open_connection(address.hostname, address.port, limit=2**24)

    async def _cursor(self) -> str:
        reader, writer = await self._connect()
        writer.write(self._post(CURSOR, id=self.ticket_id))
        document = json.loads((await _response(reader))[1])
        writer.close()
        return str(document["data"]["ticketActivityChanges"]["pageInfo"]["endCursor"])

    async def _subscribe(self, subscriptions: int) -> Connection:
        reader, writer = await self._connect()
        writer.write(_HANDSHAKE)
        await _status(reader)
        authorization = {"Authorization": f"Bearer {self.access}"}
        writer.write(_frame({"type": "connection_init", "payload": authorization}))
        for number in range(subscriptions):
            query = SUBSCRIPTION % next(self._numbers)
            payload = {"query": query, "variables": {"id": self.ticket_id}}
            writer.write(_frame({"id": str(number), "type": "subscribe", "payload": payload}))
        await writer.drain()
        reading = asyncio.create_task(_read_all(reader))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        return reader, writer

    def _post(
        self, query: str, *, access: str = "", accept: str = "application/json", **variables: Any
    ) -> bytes:
        body = json.dumps({"query": query, "variables": variables}).encode()
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return self._request("POST", "/graphql", head, accept, access) + body

    def _request(
        self,
        method: str,
        target: str,
        head: str = "",
        accept: str = "application/json",
        access: str = "",
    ) -> bytes:
        return (
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
            f"Authorization: Bearer {access or self.access}\r\n{head}\r\n"
        ).encode()


async def _response(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the status and the body of the next response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    lengths = [line[15:] for line in head.split("\r\n") if line.startswith("content-length:")]
    return head.split()[1], await reader.readexactly(int(lengths[0]) if lengths else 0)


async def _status(reader: asyncio.StreamReader) -> str:
    return (await _response(reader))[0]


async def _read_all(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65_536):
            pass


def _frame(message: dict[str, Any]) -> bytes:
    """Return a masked text frame (RFC 6455 section 5.2), with a mask of zeros."""
    data = json.dumps(message).encode()
    length = (0x80 | _LONG).to_bytes(1) + len(data).to_bytes(2)
    return b"\x81" + length + bytes(4) + data


def _close(connections: list[Connection]) -> None:
    for _reader, writer in connections:
        writer.close()
