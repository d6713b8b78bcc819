"""Measures how fast changes reach subscribers over WebSocket, from this process.

The subscribers look for texts in bytes: a client that understood GraphQL would be what is measured.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final, cast

from benchmark.contenders import Server
from benchmark.generator import http_request, read_response
from benchmark.operations import ID, PUT_PATH, TICKET
from benchmark.websocket import PING, PONG, TEXT, frame, read_frame, upgrade_request

DELIVERY: Final = "delivery"

FOLLOW: Final = """
subscription Follow($ticketId: ID!) {
  ticketActivityChanges(ticketId: $ticketId) {
    cursor
    change { changeType activityId ticketActivity { id message isPrivate version updatedAt } }
  }
}
"""
_SENT_AT: Final = re.compile(rb'"message":"sent at (\d+)"')
_BEGUN: Final = b'"change":null'
_OPENED_TOGETHER: Final = 50
_WRITERS: Final = 32
_PATIENCE_SECONDS: Final = 30
"""So long after the last update the bench waits for what has not arrived."""


@dataclass(frozen=True)
class Plan:
    """So many subscribers spread over so many tickets, and updates of these tickets in turn."""

    subscribers: int
    tickets: int
    updates_per_second: float
    seconds: float


@dataclass(frozen=True)
class Delivery:
    """What the subscribers got."""

    subscribers: int
    tickets: int
    deliveries_per_second: float
    p50_ms: float
    p99_ms: float
    lost: int
    cut: int
    """Connections that were closed meanwhile."""
    cpu_ms: float
    """CPU time of the service for each delivery, the update's share included."""
    kib_per_subscriber: float
    memory_mib: float


@dataclass(eq=False)
class Subscriber(asyncio.Protocol):
    """One WebSocket with one subscription; keeps how long each change took to arrive, in ms.

    `changes` counts all of them, also those of which that is not known.
    """

    token: str
    ticket_id: str
    latencies: list[float] = field(default_factory=list)
    changes: int = 0
    is_cut: bool = False
    _is_upgraded: bool = False
    _buffer: bytes = b""
    _begun: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def begun(self) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(upgrade_request("graphql-transport-ws"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_upgraded:
            self._upgrade()
        while self._is_upgraded and (found := read_frame(self._buffer)):
            opcode, payload, self._buffer = found
            if opcode == PING:
                self.transport.write(frame(PONG, payload))
            else:
                self._take(payload)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_cut = True
        if not self._begun.done():
            self._begun.set_exception(RuntimeError(f"A subscription failed: {self._buffer!r}"))

    def _upgrade(self) -> None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if found and head.startswith(b"HTTP/1.1 101"):
            self._is_upgraded, self._buffer = True, rest
            authorization = {"Authorization": f"Bearer {self.token}"}
            self._say({"type": "connection_init", "payload": authorization})

    def _take(self, message: bytes) -> None:
        self.changes += b'"changeType"' in message
        if sent := _SENT_AT.search(message):
            self.latencies.append((time.monotonic_ns() - int(sent[1])) / 1e6)
        elif b'"type":"ping"' in message:
            self._say({"type": "pong"})
        elif b'"type":"connection_ack"' in message:
            payload = {"query": FOLLOW, "variables": {"ticketId": self.ticket_id}}
            self._say({"id": "1", "type": "subscribe", "payload": payload})
        elif _BEGUN in message and not self._begun.done():
            self._begun.set_result(None)

    def _say(self, message: object) -> None:
        self.transport.write(frame(TEXT, json.dumps(message).encode()))


async def deliver(
    server: Server, token: str, entries: list[tuple[str, str]], plan: Plan
) -> Delivery:
    """Subscribe, update the entries in turn, and wait for what is to arrive."""
    entries = entries[: plan.tickets]
    memory = server.memory_mib()
    subscribers = await open_subscribers(server.port, token, entries, plan.subscribers)
    each = (server.memory_mib() - memory) * 1024 / plan.subscribers
    cpu = server.cpu_seconds()
    began = time.monotonic()
    sent = await _update(server.port, token, entries, plan)
    expected = sum(sent[number % len(entries)] for number in range(plan.subscribers))
    await _arrive(subscribers, expected)
    taken = time.monotonic() - began
    latencies = [latency for one in subscribers for latency in one.latencies]
    cuts = quantiles([*latencies, *latencies[:1]], n=100)
    found = Delivery(
        subscribers=plan.subscribers,
        tickets=len(entries),
        deliveries_per_second=len(latencies) / taken,
        p50_ms=cuts[49],
        p99_ms=cuts[98],
        lost=expected - len(latencies),
        cut=sum(one.is_cut for one in subscribers),
        cpu_ms=(server.cpu_seconds() - cpu) * 1000 / len(latencies),
        kib_per_subscriber=each,
        memory_mib=server.memory_mib(),
    )
    for one in subscribers:
        one.transport.close()
    return found


async def open_subscribers(
    port: int, token: str, entries: list[tuple[str, str]], count: int
) -> list[Subscriber]:
    """Follow the tickets of these entries in turn, by so many connections."""
    subscribers = [Subscriber(token, entries[n % len(entries)][1]) for n in range(count)]
    for first in range(0, count, _OPENED_TOGETHER):
        await asyncio.gather(
            *(_open(port, one) for one in subscribers[first : first + _OPENED_TOGETHER])
        )
    return subscribers


async def _open(port: int, subscriber: Subscriber) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: subscriber, "127.0.0.1", port)
    await subscriber.begun()


async def _update(port: int, token: str, entries: list[tuple[str, str]], plan: Plan) -> list[int]:
    """Send updates at the rate of the plan; return how many each entry got."""
    sent = [0] * len(entries)
    began = time.monotonic()

    async def write(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, round(plan.updates_per_second * plan.seconds), _WRITERS):
            await asyncio.sleep(began + number / plan.updates_per_second - time.monotonic())
            place = number % len(entries)
            writer.write(_put(token, *entries[place]))
            status, body = await read_response(reader)
            if status != 200:  # noqa: PLR2004
                raise RuntimeError(f"An update was answered {status}: {body!r}")
            sent[place] += 1
        writer.close()

    await asyncio.gather(*map(write, range(_WRITERS)))
    return sent


def _put(token: str, id_: str, ticket_id: str) -> bytes:
    path = PUT_PATH.replace(TICKET, ticket_id).replace(ID, id_)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"message": f"sent at {time.monotonic_ns()}"})
    return http_request("PUT", path, headers, body)


async def _arrive(subscribers: list[Subscriber], expected: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if sum(len(one.latencies) for one in subscribers) >= expected:
            return
        await asyncio.sleep(0.1)
