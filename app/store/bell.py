"""The bell: processes tell each other by LISTEN and NOTIFY what they have committed.

A NOTIFY within a transaction would take a lock that all commits of the cluster queue for, disk
included. So the bell rings after the COMMIT, on a connection of its own that does not wait for the
disk, and not often. It is a hint: whoever misses it polls.
"""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.store.engine import WaitForCommits
from app.store.postgresql_driver import CONNECTION_ERRORS

_log = logging.getLogger(__name__)

CHANNEL: Final = "ticket_activity"

RING_SECONDS: Final = 0.02
"""How much time lies between two rings of one process, at least."""

_SILENT_POLLS: Final = 15
"""After so many polls without a ring the connection that listens is asked whether it lives."""

_MAX_IDS: Final = 300
"""Ids that a ring names; NOTIFY takes 8,000 bytes. More are written as none: it may be any."""


@dataclass(slots=True, eq=False)
class Bell:
    """Rings for what this process has committed."""

    connect: Callable[[], Awaitable[Any]]
    pid: int | None = None
    _changed: set[UUID] = field(default_factory=set)
    _task: "asyncio.Task[None] | None" = None
    _connection: Any = None

    def ring(self, ticket_ids: Collection[UUID]) -> None:
        """Ring soon for these tickets."""
        self._changed |= set(ticket_ids)
        if self._changed and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ring())

    async def close(self) -> None:
        """Ring for what is left, and close the connection."""
        if self._task:
            await self._task
        if self._connection:
            # Its server may be away; then the connection ends with this process.
            with suppress(*CONNECTION_ERRORS):
                await self._connection.close(timeout=1)

    async def _ring(self) -> None:
        try:
            while self._changed:
                begun_at = time.monotonic()
                changed, self._changed = self._changed, set()
                await self._notify(changed)
                await asyncio.sleep(max(0, begun_at + RING_SECONDS - time.monotonic()))
        except CONNECTION_ERRORS as error:
            _log.warning("The bell of the feed did not ring; others poll: %s", error)
            self._changed.clear()
            self._drop()
        finally:
            self._task = None

    async def _notify(self, changed: Collection[UUID]) -> None:
        """Ring, on a new connection where the one that was there has ended."""
        if self._connection:
            try:
                await self._send(changed)
            except CONNECTION_ERRORS:
                self._drop()
            else:
                return
        self._connection = await self.connect()
        self.pid = self._connection.get_server_pid()
        await self._connection.execute("SET synchronous_commit = off")
        await self._send(changed)

    async def _send(self, changed: Collection[UUID]) -> None:
        await self._connection.execute("SELECT pg_notify($1, $2)", CHANNEL, _write_ids(changed))

    def _drop(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None


@asynccontextmanager
async def listen(
    connection: Any, poll_seconds: float, own: Callable[[], Bell | None]
) -> AsyncIterator[WaitForCommits]:
    """Yield a function that waits for a ring of another process, and at most for a time.

    It raises ConnectionError when the connection has ended, and TimeoutError when it is silent
    because its server does not answer.
    """
    heard: asyncio.Queue[Collection[UUID] | None] = asyncio.Queue()
    bell_ended = asyncio.Event()

    def hear(_connection: Any, pid: int, _channel: str, payload: str) -> None:
        bell = own()
        if bell is None or bell.pid != pid:
            heard.put_nowait(_read_ids(payload))

    def end(_connection: Any) -> None:
        bell_ended.set()
        heard.put_nowait(None)

    connection.add_termination_listener(end)
    await connection.add_listener(CHANNEL, hear)
    polled_at, silent_polls = time.monotonic(), 0

    async def wait_for_commits() -> Collection[UUID] | None:
        nonlocal polled_at, silent_polls
        try:
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + polled_at + poll_seconds - time.monotonic()
            ):
                changed = await _drain(heard)
                silent_polls = 0
        except TimeoutError:
            changed = None
        if bell_ended.is_set():
            raise ConnectionError("The connection that listens has ended.")
        if changed is None:
            polled_at = time.monotonic()
            silent_polls += 1
            if silent_polls > _SILENT_POLLS:
                await connection.execute(f"LISTEN {CHANNEL}")
                silent_polls = 0
        return changed

    yield wait_for_commits


async def _drain(heard: "asyncio.Queue[Collection[UUID] | None]") -> Collection[UUID] | None:
    """Wait for a ring, and return what it and those that came with it name."""
    rings = [await heard.get()]
    while not heard.empty():
        rings.append(heard.get_nowait())
    if any(ids is None for ids in rings):
        return None
    return {id_ for ids in rings for id_ in ids or ()}


def _write_ids(ids: Collection[UUID]) -> str:
    if len(ids) > _MAX_IDS:
        return ""
    return base64.b64encode(b"".join(id_.bytes for id_ in ids)).decode()


def _read_ids(payload: str) -> Collection[UUID] | None:
    """Return the ids that a ring names, None where it may be any: a hint, whoever sent it."""
    try:
        data = base64.b64decode(payload, validate=True)
        ids = [UUID(bytes=data[start : start + 16]) for start in range(0, len(data), 16)]
    except ValueError:
        return None
    return ids or None
