"""Shares the counts of rate limits between processes, in Redis or Valkey.

A process tells its counts, of tokens and of addresses without a valid one, each second, and before
it counts more than a twentieth of a limit, and learns in return what all have counted. So each may
pass a limit by a twentieth. A request waits for an answer at most WAIT_SECONDS. Once the server has
not answered, none waits: each process goes on by its own counts, and asks each second whether the
server is back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Final

from app.rate_limits import WINDOW_SECONDS, Window

_log: Final = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.25
TELL_SECONDS: Final = 1.0

_SHARE: Final = 20
"""A process counts at most one part in so many of the limit before it tells."""

_GIVE_UP_SECONDS: Final = 1.0
_CONNECTIONS: Final = 8
_WAIT_PARTS: Final = 10
_MAX_WAITING: Final = 10_000
_PREFIX: Final = "ticket-activity"
_PROBE: Final = "probe"


@dataclass(slots=True, eq=False)
class SharedCounts:
    """Counts in a Redis or Valkey. `failures` counts the times that it did not answer in time."""

    url: str
    failures: int = 0
    is_away: bool = False
    _storage: Any = None
    _waiting: set[Window] = field(default_factory=set)
    _asking: set["asyncio.Task[None]"] = field(default_factory=set)
    _connections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONNECTIONS))

    def __post_init__(self) -> None:
        # Imported only where they are needed: they are an optional extra of the package.
        storage = import_module("limits.aio.storage").RedisStorage
        retries = import_module("redis.asyncio.retry").Retry
        backoff = import_module("redis.backoff").NoBackoff
        self._storage = storage(
            f"async+{self.url.replace('valkey', 'redis', 1)}",  # whose protocol Valkey speaks
            implementation="redispy",
            key_prefix=_PREFIX,
            socket_timeout=_GIVE_UP_SECONDS,
            socket_connect_timeout=_GIVE_UP_SECONDS,
            retry=retries(backoff(), 0),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell what no further request of a token would tell, while the block runs."""
        telling = asyncio.create_task(self._tell_each_second())
        try:
            yield
        finally:
            for task in (telling, *self._asking):
                task.cancel()
            await asyncio.gather(telling, *self._asking, return_exceptions=True)
            await self._storage.bridge.get_connection().aclose()

    def note(self, window: Window) -> None:
        if len(self._waiting) < _MAX_WAITING:  # else its next count may find room
            self._waiting.add(window)

    def is_due(self, window: Window) -> bool:
        if self.is_away or window.used >= window.limit.amount:
            return False
        return (
            window.told_at is None
            or window.untold * _SHARE >= window.limit.amount
            or time.monotonic() - window.told_at >= TELL_SECONDS
        )

    @property
    def is_busy(self) -> bool:
        return self._connections.locked()

    async def tell(self, window: Window) -> None:
        """Add what was counted here to what all have counted, and take over the sum.

        Requests that ask at the same time share one answer. When one of them ends, it still comes.
        """
        if window.telling is None:
            window.telling = self._ask(partial(self._tell, window))
        await self._in_time(window.telling)

    async def _tell(self, window: Window) -> None:
        # What the server does not answer is not told again: it may have counted it.
        untold, window.untold = window.untold, 0
        key = f"{window.limit.name}/{window.key}"
        try:
            async with self._connections:
                used = await self._storage.incr(key, WINDOW_SECONDS, untold)
                if window.told_at is None and used != untold:  # another process has begun it
                    left = await self._storage.get_expiry(key) - time.time()
                    window.ends_at = window.limit.clock() + left
        finally:
            window.telling = None
        # More is known here than there when the server was away.
        window.used = max(window.used, used + window.untold)
        window.told_at = time.monotonic()

    def _ask(self, ask: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._asked(ask))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return task

    async def _asked(self, ask: Callable[[], Awaitable[None]]) -> None:
        try:
            await ask()
        except Exception as error:  # whatever it is, the service goes on without
            self._note_failure(str(error) or type(error).__name__)

    async def _in_time(self, task: "asyncio.Task[None]") -> bool:
        """Wait for an answer, but not for long. Return whether there is one."""
        # The task goes on: redis-py may take seconds to clean up after a cancelled command. Waiting
        # in parts lets an event loop that is behind read an answer that came in time.
        for _ in range(_WAIT_PARTS):
            done, _pending = await asyncio.wait([task], timeout=WAIT_SECONDS / _WAIT_PARTS)
            if done:
                return True
        self._note_failure(f"within {WAIT_SECONDS} seconds")
        return False

    def _note_failure(self, reason: str) -> None:
        self.failures += 1
        if not self.is_away:
            self.is_away = True
            _log.warning(
                "Redis does not answer (%s): until it does, each process limits rates by its own "
                "counts.",
                reason,
            )

    async def _tell_each_second(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if self.is_away:
                await self._look_whether_it_is_back()
            waiting, self._waiting = self._waiting, set()
            for window in waiting:
                if self._is_to_tell(window):
                    await self.tell(window)

    def _is_to_tell(self, window: Window) -> bool:
        has_ended = window.limit.clock() >= window.ends_at  # its count would go into the next one
        return bool(window.untold) and not has_ended and not self.is_away

    async def _look_whether_it_is_back(self) -> None:
        failures = self.failures
        # A server without memory to write would still answer what only reads.
        asking = self._ask(partial(self._storage.incr, _PROBE, WINDOW_SECONDS, 0))
        if await self._in_time(asking) and self.failures == failures:
            self.is_away = False
            _log.warning("Redis answers again: processes share the counts of rate limits.")
