"""Server-sent events, by the distinct connections mode of graphql-sse."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from app.errors import Reconnect, Unauthenticated
from app.graphql_server.errors import errors_of
from app.graphql_server.execution import Event
from app.graphql_server.streams import Guard, each, encode_event, first_of
from app.http import encode_json

EVENT_STREAM = "text/event-stream"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Accept"),
    (b"x-accel-buffering", b"no"),  # a proxy that collects would hold the events back
]


_Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EventStreamResponse:
    """The response that is a stream. Each event carries its cursor as id, to resume after it."""

    events: AsyncGenerator[Event]
    guard: Guard[Any]
    keep_alive: float
    request_id: str

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the operation, the token, the lifetime or the client ends it.

        Only an operation that is complete says so: without `complete` a client comes again.
        """
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

        async def write(text: bytes) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": True})

        try:
            await first_of(
                self._operate(write), self._keep_alive(write), self.guard.watch(), _gone(receive)
            )
        except Reconnect:
            pass
        except Unauthenticated as error:
            await self._refuse(error, write)
        except OSError:
            return  # the client has gone
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _operate(self, write: _Write) -> None:
        async def write_event(event: Event) -> None:
            cursor = getattr(event.payload, "cursor", None)
            name = f"id: {cursor}\n".encode() if cursor else b""
            await write(name + _event(b"next", encode_event(event, self.request_id)))

        try:
            await each(self.events, write_event)
        except (Reconnect, OSError):
            raise
        except Exception as error:
            await self._refuse(error, write)
        else:
            await write(_COMPLETE)

    async def _refuse(self, error: Exception, write: _Write) -> None:
        document = encode_json({"errors": errors_of(error, self.request_id)})
        await write(_event(b"next", document) + _COMPLETE)

    async def _keep_alive(self, write: _Write) -> None:
        while True:
            await write(b":\n\n")
            await asyncio.sleep(self.keep_alive)


_COMPLETE = b"event: complete\ndata: \n\n"


def _event(name: bytes, document: bytes) -> bytes:
    return b"event: " + name + b"\ndata: " + document + b"\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
