"""Operations over server-sent events, in the distinct connections mode of graphql-sse.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md#distinct-connections-mode
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import Busy, Reconnect, TokenExpired, Unauthenticated
from app.graphql_server.errors import code_of, errors_of, log_fault
from app.graphql_server.events import Event
from app.graphql_server.streams import Guard, each, encode_event, first_of
from app.http import note, request_id
from app.json_text import encode_json

EVENT_STREAM: Final = "text/event-stream"

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "vary": "Accept",
    "x-accel-buffering": "no",  # keeps nginx from buffering the events
}
_COMPLETE: Final = b"event: complete\ndata: \n\n"
_COMMENT: Final = b":\n\n"

_Write = Callable[[bytes], Awaitable[None]]


def event_stream_head() -> Response:
    """Return the response to HEAD where GET would open a stream: its headers, without a body."""
    response = Response(headers=_HEADERS)
    del response.headers["content-length"]  # the length of the stream is not known
    return response


@dataclass(frozen=True, slots=True)
class EventStreamResponse:
    """A response that is a stream of events. Each has an id, after which a client can resume.

    The event `complete` ends an operation. A client resumes a stream that ends without it.
    """

    events: AsyncGenerator[Event]
    guard: Guard[Any]
    keep_alive: float
    scope: Scope

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the operation, the token, the lifetime or the client ends it."""
        headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(text: bytes) -> None:
            # `send` waits while the client does not read, so at most one event is held in memory.
            await send({"type": "http.response.body", "body": text, "more_body": True})

        last_words = await self._stream(write, receive)
        await send({"type": "http.response.body", "body": last_words, "more_body": False})

    async def _stream(self, write: _Write, receive: Receive) -> bytes:
        """Write events until the stream ends; return what is left to be written."""
        try:
            await first_of(
                self._operate(write), self._keep_alive(write), self.guard.watch(), _gone(receive)
            )
        except TokenExpired as error:
            # No event of the protocol lets a client go on with a fresh token. The end without
            # `complete` does; the comment is for people.
            return b": " + error.message.encode() + b"\n\n"
        except Unauthenticated as error:
            return self._failure(error)
        except (Reconnect, Busy, OSError):
            return b""
        except Exception as fault:
            log_fault(fault, request_id(self.scope))
        return b""

    async def _operate(self, write: _Write) -> None:
        async def write_event(event: Event) -> None:
            head = b"id: " + event.id.encode() + b"\n" if event.id else b""
            await write(head + _event(b"next", encode_event(event, self.scope)))

        try:
            await each(self.events, write_event)
        except (Reconnect, OSError):
            raise
        except Exception as error:
            await write(self._failure(error))
        else:
            await write(_COMPLETE)

    def _failure(self, error: Exception) -> bytes:
        errors = errors_of(error, request_id(self.scope))
        note(self.scope, "code", code_of(errors))
        document = encode_json({"errors": errors})
        return _event(b"next", document) + _COMPLETE

    async def _keep_alive(self, write: _Write) -> None:
        while True:
            await write(_COMMENT)
            await asyncio.sleep(self.keep_alive)


def _event(name: bytes, document: bytes) -> bytes:
    return b"event: " + name + b"\ndata: " + document + b"\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
