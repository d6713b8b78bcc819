"""What both kinds of streams need: results that are guarded, and ended when their time is over."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.errors import Reconnect
from app.graphql_server.errors import format_errors
from app.graphql_server.execution import Event
from app.http import encode_json

RECHECK_SECONDS: Final = 2.5
"""How often the token of an open stream is looked at. Together with the time that a token is
trusted without looking, an end of it is noticed within 5 seconds."""

ViewerT = TypeVar("ViewerT")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """In seconds, but for `subscriptions`, which one connection may have."""

    subscriptions: int = 100
    init_timeout: float = 10
    keep_alive: float = 15
    lifetime: float = 3600


@dataclass(frozen=True, slots=True)
class Guard(Generic[ViewerT]):
    """Watches over an open connection."""

    authenticate: Callable[[str | None], Awaitable[ViewerT]]
    authorization: str | None
    lifetime: float

    async def watch(self) -> None:
        """Raise Unauthenticated when the token has ended, Reconnect when the time is over."""
        end = time.monotonic() + self.lifetime
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(RECHECK_SECONDS, left))
            await self.authenticate(self.authorization)
        raise Reconnect("The stream has reached its lifetime; resume it after the last cursor.")


def encode_event(event: Event, request_id: str) -> bytes:
    """Return the response document of one event, encoded once for all who get the same."""
    result = event.result
    if result.errors:
        errors = format_errors(result.errors, request_id)
        return encode_json({"errors": errors, "data": result.data})
    if event.encoded is None:
        event.encoded = encode_json({"data": result.data})
    return event.encoded


async def first_of(*works: Awaitable[None]) -> None:
    """Run until the first of them ends, and end the others; raise what it raised."""
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
    async with aclosing(events) as stream:
        async for event in stream:
            await send(event)
