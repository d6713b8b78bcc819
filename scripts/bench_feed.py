"""Measures the feed: many subscribers over WebSocket, one stream of updates, on this machine.

The subscribers are read as bytes: a client that understood GraphQL would be what is measured.
"""

import asyncio
import base64
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2

from tests.support.process import Process, serve, token
from tests.support.service import Client

FOLLOW: Final = """
subscription Follow($ticketId: ID!) {
  ticketActivityChanges(ticketId: $ticketId) {
    cursor
    change { changeType activityId ticketActivity { id message isPrivate version updatedAt } }
  }
}
"""
_SENT_AT: Final = re.compile(rb'"message":"at (\d+)"')
_TIMEOUT_SECONDS: Final = 60
_BEGUN: Final = b'"change":null'


@dataclass(eq=False)
class Subscriber(asyncio.Protocol):
    """One WebSocket with one subscription; keeps how long each change took to arrive."""

    host: str
    token: str
    ticket_id: str
    latencies: list[float] = field(default_factory=list)
    _rest: bytes = b""
    _begun: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def begun(self) -> None:
        await self._begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /graphql HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if data.startswith(b"HTTP/1.1 101"):
            payload = {"Authorization": f"Bearer {self.token}"}
            self._say({"type": "connection_init", "payload": payload})
        is_acknowledged = b"connection_ack" in data
        data = self._rest + data
        end = 0
        for found in _SENT_AT.finditer(data):
            self.latencies.append((now - int(found[1])) / 1e6)
            end = found.end()
        self._rest = data[end:][-2000:]
        if _BEGUN in data and not self._begun.done():
            self._begun.set_result(None)
        if is_acknowledged:
            variables = {"ticketId": self.ticket_id}
            self._say(
                {
                    "id": "1",
                    "type": "subscribe",
                    "payload": {"query": FOLLOW, "variables": variables},
                }
            )

    def _say(self, message: object) -> None:
        """Send a text frame, masked with zeros as RFC 6455 allows."""
        payload = json.dumps(message).encode()
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")  # noqa: PLR2004
        self.transport.write(b"\x81" + length + bytes(4) + payload)


async def subscribe(origin: str, access: str, tickets: list[str]) -> list[Subscriber]:
    address = urlsplit(origin)
    subscribers = []
    for ticket_id in tickets:
        subscriber = Subscriber(address.netloc, access, ticket_id)
        subscribers.append(subscriber)
        await asyncio.get_running_loop().create_connection(
            lambda made=subscriber: made, address.hostname, address.port
        )
        await subscriber.begun()
    return subscribers


async def update(
    client: Client, entries: list[tuple[str, str]], rate: float, seconds: float
) -> int:
    """Send updates at a rate, each with the time of its sending; return how many."""
    started = time.monotonic()
    tasks = set()
    sent = 0
    while (due := started + sent / rate) < started + seconds:
        await asyncio.sleep(max(0, due - time.monotonic()))
        ticket_id, activity_id = entries[sent % len(entries)]
        body = {"message": f"at {time.monotonic_ns()}"}
        tasks.add(asyncio.create_task(client.put(ticket_id, activity_id, body)))
        sent += 1
    for response in await asyncio.gather(*tasks):
        response.raise_for_status()
    return sent


async def arrived(subscribers: list[Subscriber], expected: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while sum(len(one.latencies) for one in subscribers) < expected:
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.1)


def memory_of(pids: list[int]) -> float:
    """Resident memory of processes, in KiB."""
    return sum(
        int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
        for pid in pids
    )


def children(process: Process) -> list[int]:
    pid = process.popen.pid
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, listed)]


async def measure(
    folder: Path, *, subscribers: int, tickets: int, rate: float, seconds: float, workers: int
) -> None:
    file = folder / f"{subscribers}-{tickets}-{workers}.db"
    with serve(file, workers=workers, max_subscriptions_per_token=str(subscribers)) as process:
        access = token(file, "activity:read", "activity:write")
        limits = httpx2.Limits(max_connections=64)
        async with httpx2.AsyncClient(
            base_url=process.origin, limits=limits, timeout=_TIMEOUT_SECONDS
        ) as http:
            client = Client(http, uuid4(), access)
            entries = []
            for _ in range(tickets):
                created = await client.create_activity(await client.create_ticket())
                entries.append((created["ticketId"], created["id"]))
            before = memory_of(children(process))
            followed = [entries[number % tickets][0] for number in range(subscribers)]
            followers = await subscribe(process.origin, access, followed)
            each = (memory_of(children(process)) - before) / subscribers
            sent = await update(client, entries, rate, seconds)
            expected = sent * subscribers // tickets
            await arrived(followers, expected)
    taken = sorted(latency for one in followers for latency in one.latencies)
    cuts = quantiles(taken, n=100)
    print(
        f"| {subscribers:,} on {tickets:,} | {workers} | {rate:g} | {cuts[49]:,.0f} "
        f"| {cuts[98]:,.0f} | {each:,.0f} | {expected - len(taken):,} of {expected:,} |",
        flush=True,
    )
    for one in followers:
        one.transport.close()


async def bench_feed(subscribers: int, seconds: float) -> None:
    print(
        "| subscribers on tickets | processes | updates a second | p50 ms | p99 ms "
        "| KiB a subscriber | lost |\n|---|--:|--:|--:|--:|--:|--:|"
    )
    with TemporaryDirectory() as folder:
        for workers in (1, 2):
            for tickets, rate in ((1, 5), (1, 10), (1, 50), (subscribers, 50)):
                await measure(
                    Path(folder),
                    subscribers=subscribers,
                    tickets=tickets,
                    rate=rate,
                    seconds=seconds,
                    workers=workers,
                )
