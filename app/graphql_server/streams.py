"""Shared by WebSocket and server-sent events: token checks, lifetimes, encoded events."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from starlette.types import Scope

from app.errors import Busy, Reconnect
from app.graphql_server.errors import code_of, format_errors
from app.graphql_server.events import Event
from app.http import note, request_id
from app.json_text import encode_json

ViewerT = TypeVar("ViewerT")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Times in seconds, and `subscriptions`, the number that one connection may have.

    `recheck` is the time between two checks of the token of an open stream. Together with the time
    that a token is cached, the end of a token is noticed within 5 seconds.
    """

    subscriptions: int = 100
    init_timeout: float = 10
    keep_alive: float = 15
    lifetime: float = 3600
    recheck: float = 2.5


@dataclass(frozen=True, slots=True)
class Guard(Generic[ViewerT]):
    """Checks the token and the lifetime of an open connection."""

    authenticate: Callable[[str | None], Awaitable[ViewerT]]
    authorization: str | None
    limits: StreamLimits

    async def watch(self) -> NoReturn:
        """Raise Unauthenticated once the token ends, or Reconnect once the lifetime is over."""
        end = time.monotonic() + self.limits.lifetime
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(self.limits.recheck, left))
            with suppress(Busy):  # the token could not be checked; the next check may succeed
                await self.authenticate(self.authorization)
        raise Reconnect("The stream has reached its lifetime; resume it after the last cursor.")


def encode_event(event: Event, scope: Scope) -> bytes:
    """Return the response document of an event. Its errors get the id of the request."""
    if event.document is not None:
        return event.document
    errors = format_errors(event.errors, request_id(scope))
    note(scope, "code", code_of(errors))
    return encode_json({"errors": errors, "data": event.data})


async def first_of(*works: Awaitable[None]) -> None:
    """Run coroutines until the first one ends. Cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        await task


async def each(events: AsyncGenerator[Event], send: Callable[[Event], Awaitable[None]]) -> None:
    """Send every event. Raises Reconnect also where the source of the events is BUSY."""
    async with aclosing(events) as stream:
        async for event in stream:
            await send(event)
