"""What every request passes: bounds, a request id, CORS, and the response to a fault."""

import asyncio
import logging
from collections.abc import Collection
from itertools import count
from secrets import token_hex
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    CrossOriginRefused,
    HeadersTooLarge,
    InternalError,
    RequestTimeout,
    ServiceError,
    UriTooLong,
)
from app.http import request_id
from app.problems import problem

_log: Final = logging.getLogger(__name__)

_PROCESS_ID: Final = token_hex(10)
_request_numbers: Final = count()

_ALLOWED_METHODS: Final = ("GET", "HEAD", "POST", "PUT")
_ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "Idempotency-Key",
    # Of tracing, as W3C names them.
    "X-Request-ID",
    "baggage",
    "traceparent",
    "tracestate",
    # Of Apollo's clients.
    "apollo-require-preflight",
    "apollographql-client-name",
    "apollographql-client-version",
)
_EXPOSED_HEADERS: Final = ("Allow", "ETag", "Retry-After", "WWW-Authenticate", "X-Request-ID")


class Direct:
    """Pass the requests of one path to its application, which responds to all its errors itself.

    They skip Starlette's router and exception handlers, which take a tenth of the time of a
    short request.
    """

    def __init__(self, app: ASGIApp, path: str, http: ASGIApp, websocket: ASGIApp) -> None:
        self.app = app
        self.path = path
        self.targets = {"http": http, "websocket": websocket}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self.targets.get(scope["type"])
        if target and scope["path"].removeprefix(scope.get("root_path", "")) == self.path:
            await target(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class RequestBounds:
    """Refuse an oversized URI or header section and a slow body; give every request an id.

    Uvicorn bounds none of them. The id is in `scope["state"]` and in the response as
    `X-Request-ID`.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_uri_bytes: int,
        max_header_bytes: int,
        max_receive_seconds: float,
    ) -> None:
        self.app = app
        self.max_uri_bytes = max_uri_bytes
        self.max_header_bytes = max_header_bytes
        self.max_receive_seconds = max_receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        identifier = f"{_PROCESS_ID}{next(_request_numbers):012x}"
        scope.setdefault("state", {})["request_id"] = identifier
        send = _with_headers(send, identifier.encode())
        if error := self._error(scope):
            await _refuse(error, scope, receive, send)
            return
        if scope["type"] == "http":
            receive = _in_time(receive, self.max_receive_seconds)
        await self.app(scope, receive, send)

    def _error(self, scope: Scope) -> ServiceError | None:
        path = scope.get("raw_path") or scope["path"].encode()
        if len(path) + 1 + len(scope["query_string"]) > self.max_uri_bytes:
            return UriTooLong(f"The URI is longer than {self.max_uri_bytes} bytes; use POST.")
        # 4 is what ": " and the line end add on the wire: many tiny headers are large too.
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > (
            self.max_header_bytes
        ):
            return HeadersTooLarge(f"The headers are larger than {self.max_header_bytes} bytes.")
        return None


class Faults:
    """Log an unexpected exception once, and respond with a problem.

    Starlette's own handler of faults raises them again after its answer, and Uvicorn then drops
    the connection with whatever was sent behind the request. Once a response has begun, nothing
    else is possible: its client must learn that it is cut.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_once(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_once)
        except ClientDisconnect:
            return  # nobody is left to answer, and nothing went wrong here
        except Exception as fault:
            if has_begun:
                raise
            identifier = request_id(scope)
            _log.exception("Internal error in request %s", identifier, exc_info=fault)
            await problem(InternalError(), identifier)(scope, receive, send)


class CrossOrigin(CORSMiddleware):
    """CORS for pages of the configured origins. A refused preflight says what is not allowed."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_ALLOWED_METHODS,
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if error := self._error(scope):
            await problem(error, request_id(scope))(scope, receive, send)
        elif self.allow_origins:
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _error(self, scope: Scope) -> CrossOriginRefused | None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=scope)
        origin, method = headers.get("origin"), headers.get("access-control-request-method")
        if origin is None or method is None:
            return None
        if not self.is_allowed_origin(origin):
            return CrossOriginRefused(
                f"The origin {origin} is not among those that TICKET_ACTIVITY_CORS_ORIGINS names."
            )
        if method not in self.allow_methods:
            return CrossOriginRefused(
                f"Pages of other origins may send {', '.join(self.allow_methods)}, not {method}."
            )
        requested = headers.get("access-control-request-headers", "").lower().split(",")
        refused = {name.strip() for name in requested} - {*self.allow_headers, ""}
        if refused:
            return CrossOriginRefused(
                f"Pages of other origins may not send the header {', '.join(sorted(refused))}."
            )
        return None


def _with_headers(send: Send, identifier: bytes) -> Send:
    """Add `X-Request-ID` and `X-Content-Type-Options: nosniff` to the response."""

    async def send_with_headers(message: Message) -> None:
        if "headers" in message:
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", identifier),
                (b"x-content-type-options", b"nosniff"),
            ]
        await send(message)

    return send_with_headers


def _in_time(receive: Receive, seconds: float) -> Receive:
    """Return a `receive` that raises RequestTimeout when the body is not complete in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    is_complete = False

    async def receive_in_time() -> Message:
        nonlocal is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None
        is_complete = not message.get("more_body", False)
        return message

    return receive_in_time


async def _refuse(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the problem. A WebSocket is closed where the server cannot send a response."""
    denial = "websocket.http.response" in scope.get("extensions", {})
    if scope["type"] == "http" or denial:
        await problem(error, request_id(scope))(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
