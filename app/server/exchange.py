"""One request and its response on a connection of HTTP/1.1: the ASGI side of `HttpProtocol`.

Uvicorn's own class, which it calls a cycle, sends the head and the body of a response apart, looks
for wrong characters in each name and value, and waits on an event for a body that has come already.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

_log: Final = logging.getLogger("uvicorn.error")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY: Final = (204, 304)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_FAULT: Final = b"Internal Server Error"
_FAULT_START: Final = {
    "type": "http.response.start",
    "status": 500,
    "headers": [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_FAULT)),
        (b"connection", b"close"),
    ],
}
_FAULT_BODY: Final = {"type": "http.response.body", "body": _FAULT}

Headers = Iterable[tuple[bytes, bytes]]


class Exchange:
    """Gives an application the request, and sends its response.

    The head of the response is sent with the first part of its body, as ASGI wants it.
    `default_headers` are those that every response has, `on_response` is called when it is
    complete. `keep_alive` says whether the connection stays open then.
    """

    __slots__ = (
        "_has_body",
        "_has_news",
        "_head",
        "_left",
        "_news",
        "body",
        "default_headers",
        "disconnected",
        "expects_continue",
        "flow",
        "keep_alive",
        "more_body",
        "on_response",
        "response_complete",
        "response_started",
        "scope",
        "transport",
    )

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        default_headers: Headers,
        *,
        expects_continue: bool,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.default_headers = default_headers
        self.expects_continue = expects_continue
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._has_body = True
        self._head = b""
        self._left: int | None = None  # of the body, by its Content-Length; None: it has chunks
        self._has_news = False
        self._news: asyncio.Event | None = None

    # The request

    def add_body(self, part: bytes) -> None:
        """Take a part of the body. `set` lets the application know of it."""
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body) + part

    def end_body(self) -> None:
        self.more_body = False
        self.set()

    @property
    def message_event(self) -> "Exchange":
        """What Uvicorn's protocol calls `set` of, when the client has gone."""
        return self

    def set(self) -> None:
        """Let `receive` return: there is something new to tell."""
        self._has_news = True
        if self._news:
            self._news.set()

    def disconnect(self) -> None:
        """Take note that the client has gone."""
        self.disconnected = True
        self.set()

    async def receive(self) -> Message:
        """Return the part of the body that has come by now, as ASGI has it."""
        if self.expects_continue and not self.transport.is_closing():
            self.transport.write(_CONTINUE)
            self.expects_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self._has_news:
                await self._wait_for_news()
        self._has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait_for_news(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    # The response

    async def run(self, app: ASGIApp) -> None:
        """Let the application respond. Log its fault, and respond with 500 if that is possible."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("The application did not complete its response.")
        except BaseException as error:
            _log.error("Exception in ASGI application\n", exc_info=error)
            if self.response_started:
                self.transport.close()
            else:
                await self.send(_FAULT_START)
                await self.send(_FAULT_BODY)

    async def send(self, message: Message) -> None:
        """Send a part of the response. Wait while the client reads too slowly."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.transport.is_closing():
            self.disconnect()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        else:
            self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))

    def _begin(self, status: int, headers: Headers) -> None:
        if self.response_started:
            raise RuntimeError("The response has begun already.")
        self.response_started = True
        self.expects_continue = False
        lines = [STATUS_LINE[status]]
        is_closing = False
        for name, value in chain(self.default_headers, headers):
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value.lower() == b"close":
                is_closing = True
        if is_closing:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            self._has_body = False
        elif self._left is None:
            lines.append(b"transfer-encoding: chunked\r\n")
        self._head = b"".join(lines) + b"\r\n"
        if self._head.count(b"\n") != len(lines) + 1 or self._head.count(b"\r") != len(lines) + 1:
            raise RuntimeError("A header field of the response holds a line break.")

    def _send_body(self, part: bytes, *, is_last: bool) -> None:
        if not self.response_started or self.response_complete:
            raise RuntimeError("A body comes after the start of a response, and before its end.")
        if not self._has_body:
            part = b""
        elif self._left is None:
            part = (b"%x\r\n%b\r\n" % (len(part), part) if part else b"") + _LAST_CHUNK * is_last
        else:
            self._left -= len(part)
            if self._left < 0 or (self._left and is_last):
                raise RuntimeError("The body has not the length that Content-Length says.")
        self.transport.writelines((self._head, part))
        self._head = b""
        if is_last:
            self._end()

    def _end(self) -> None:
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
