"""Uvicorn's protocol for HTTP/1.1, with time limits and a graceful shutdown.

Uvicorn lets a client take any time to send a request. At a shutdown it closes idle connections at
once, so a request that arrives at that moment is reset instead of answered.
"""

import asyncio
from collections import deque
from typing import Final, cast
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.applications import Starlette
from starlette.types import Scope
from uvicorn.lifespan.on import LifespanOn, LifespanSendMessage
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.expiry import Expiry
from app.server.exchange import Exchange
from app.server.refusals import (
    BODY_TOO_LARGE,
    ENDING,
    HEAD_TOO_LARGE,
    TOO_SLOW,
    bad_request,
)
from app.server.websocket import WebSocketProtocol
from app.settings import Settings
from app.store.errors import DatabaseUnusable

_MAX_PIPELINED: Final = 32
"""Requests that may wait for the answer to one before them. The bytes of a small one, which come
ten thousand at a time, take a hundred times their size in memory."""

_GRACE_SECONDS: Final = 30
"""How long requests in progress may take at a shutdown."""

_WAKING_BYTES: Final = 16 * 1024
"""Less than Uvicorn holds of a body before it stops to read."""

_NO_HTTP: Final = "Invalid HTTP request received."


class HttpProtocol(HttpToolsProtocol):
    """The connection of one client."""

    config: "ServerConfig"
    cycle: Exchange  # type: ignore[assignment]
    pipeline: deque[Exchange]  # type: ignore[assignment]
    _is_upgrade = False
    _is_draining = False
    _is_receiving = True  # so that a client that connects must send something in time
    _has_head = False
    _is_over = False  # nothing more is read
    _message_bytes = 0  # that have come of a request, but those with its first one
    _answering: Exchange | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bound_receiving()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._unset_keepalive_if_required()
        self._message_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning(_NO_HTTP)
            self._end_input(bad_request(_NO_HTTP))
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(rest=data[upgrade.args[0] :])
        else:
            self._bound_message()
        self._bound_receiving()

    def _bound_message(self) -> None:
        """End what goes on and on: the parser holds a field, and the service its fields, whole."""
        if self._is_receiving and self._has_head:
            if self._message_bytes > self.config.max_message_bytes:
                self._end_input(BODY_TOO_LARGE)
        elif self._message_bytes > self.config.max_head_bytes:
            self._end_input(HEAD_TOO_LARGE)

    def _end_input(self, refusal: bytes = b"") -> None:
        """Read nothing more: what comes is no request, or one too many.

        The requests before it are answered, the last of them closes the connection. Where there is
        none, the refusal is the answer.
        """
        self._is_over = True
        is_in_body = self._is_receiving and self._has_head
        if is_in_body and self.pipeline:
            self.pipeline.pop()  # its body has no end
            is_in_body = False
        last = self.pipeline[-1] if self.pipeline else self._answering
        if last and not last.response_complete and not is_in_body:
            last.keep_alive = False
        elif last and last.response_started and is_in_body:
            self.transport.close()
        else:
            self.transport.write(refusal)
            self.transport.close()

    def _answer(self, exchange: Exchange) -> None:
        self._answering = exchange
        task = self.loop.create_task(exchange.run(self.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _upgrade(self, rest: bytes) -> None:
        """Turn to WebSocket, or read a request that names another protocol as if it named none.

        A server may ignore the field Upgrade (RFC 9110 section 7.8). The parser has taken the body
        for bytes of that protocol; Java's HttpClient sends `Upgrade: h2c` with its first requests.
        """
        if self._should_upgrade():
            if self._answering and not self._answering.response_complete:
                self._end_input()  # its answer must come first
            else:
                self.handle_websocket_upgrade()
        elif (method := self.parser.get_method()) == b"CONNECT":
            self.send_400_response("This is no proxy.")
        else:
            version = self.parser.get_http_version().encode()
            lines = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
            head = [b"%b %b HTTP/%b" % (method, self.url, version), *lines, b"\r\n"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn does
            self.data_received(b"\r\n".join(head) + rest)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # tells the last request only
        if self._answering and not self._answering.response_complete:
            self._answering.disconnect()
        self.config.idle.stop(self)
        self._clear_deadline()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests wait")  # ends the parser, as what is no HTTP does
        super().on_message_begin()
        self._is_receiving, self._has_head = True, False
        self._message_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. Trailers are no part of it (RFC 9110 section 6.5.1)."""
        if not self._has_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the application respond, after the responses to earlier requests (pipelining)."""
        scope, parser = self.scope, self.parser
        scope["method"] = parser.get_method().decode("ascii")
        version = scope["http_version"] = parser.get_http_version()
        self._is_upgrade = bool(parser.should_upgrade())
        if self._is_upgrade:
            return
        self._has_head = True
        scope["raw_path"], scope["path"], scope["query_string"] = _target(self.url)
        before = self.cycle
        is_next = before is None or before.response_complete
        self.cycle = Exchange(
            cast("Scope", scope),
            self.transport,
            self.flow,
            self.server_state.default_headers,
            expects_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive() and not self._is_draining,
            on_response=self.on_response_complete,
        )
        if is_next:
            self._answer(self.cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body. The application wakes for much of it, or for the end of it.

        Waking it for each byte of a thousand clients that send them one by one would take nearly
        all processor time.
        """
        exchange = self.cycle
        if self._is_upgrade or exchange.response_complete:
            return
        exchange.add_body(body)
        size = len(exchange.body)
        if size >= _WAKING_BYTES:
            exchange.set()
        if size > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        if self.cycle.response_complete:
            self.config.idle.start(self)  # it was answered before its body came
        else:
            self.cycle.end_body()
        self.scope["state"]["is_received"] = True
        self._is_receiving = False
        self._message_bytes = 0
        self._clear_deadline()

    def on_response_complete(self) -> None:
        """Begin with the next request if it has come, else wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._answer(self.pipeline.popleft())
        elif self._is_draining:
            self._close_when_idle()
        else:
            self.config.idle.start(self)

    def expire(self) -> None:
        """Close: the client has sent nothing for long after the last response."""
        self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self.config.idle.stop(self)
        super()._unset_keepalive_if_required()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(bad_request(msg))
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        self._is_receiving = False
        self._clear_deadline()
        if self._is_draining:
            self.transport.write(ENDING)
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close after the response in progress, or the response to what arrives in the drain time.

        That response has `Connection: close` (RFC 9112 section 9.6). One that has begun cannot have
        it, so its connection is then treated as an idle one.
        """
        self._is_draining = True
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False
        elif self.cycle is None or self.cycle.response_complete:
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.pipeline or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        # Uvicorn cancels this timer when data arrives.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.config.drain_seconds, self.timeout_keep_alive_handler
        )

    def _bound_receiving(self) -> None:
        if self._is_receiving and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(
                self.config.max_receive_seconds, self._end_receiving
            )

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_receiving(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._bound_receiving()  # an answer is under way, to this request or one before it
            return
        if self.headers is not None and not self._has_head:  # some of a head has arrived
            self.transport.write(TOO_SLOW)
        self.transport.close()


def _target(url: bytes) -> tuple[bytes, str, bytes]:
    """Return the path as it came, the path, and the query of a request target."""
    parsed = httptools.parse_url(url)
    path: bytes = parsed.path
    return path, unquote(path.decode("ascii")), parsed.query or b""


class Lifespan(LifespanOn):
    """Uvicorn's lifespan, which says in one line that the database cannot be used."""

    async def send(self, message: LifespanSendMessage) -> None:
        if message["type"] == "lifespan.startup.failed":
            # Starlette sends the traceback, whose last line is the exception.
            *_, last = message.get("message", "").strip().splitlines()
            kind, _, reason = last.partition(": ")
            if kind.endswith(DatabaseUnusable.__name__):
                message["message"] = reason
        await super().send(message)


class ServerConfig(uvicorn.Config):
    """Uvicorn's options, and those of `HttpProtocol`."""

    def __init__(self, app: Starlette, settings: Settings) -> None:
        super().__init__(
            app,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=settings.websocket_compression,
            access_log=False,
            log_config=None,  # `app.log` has configured it
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            lifespan="on",  # else Uvicorn serves on when the lifespan fails at once
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self.idle = Expiry(self.timeout_keep_alive)
        self.max_receive_seconds = settings.max_receive_seconds
        # What is a little over the limits is refused by the application, which says them. A body in
        # chunks takes a few times its size.
        self.max_head_bytes = 2 * (settings.max_uri_bytes + settings.max_header_bytes)
        self.max_message_bytes = self.max_head_bytes + 8 * settings.max_body_bytes
        self.drain_seconds = settings.drain_seconds
        self.shutdown_delay_seconds = settings.shutdown_delay_seconds

    def load(self) -> None:
        super().load()
        if self.lifespan == "on":
            self.lifespan_class = Lifespan
