"""What every request passes: an id, bounds, the response to a fault, and CORS."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Collection
from itertools import chain, count
from secrets import token_hex
from time import perf_counter
from typing import Any, Final

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
from app.observation import Observe
from app.problems import problem

_log: Final = logging.getLogger(__name__)

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,100}")

_SWITCHING_PROTOCOLS: Final = 101
_GONE: Final = 499  # as nginx has it: the client left before it was answered
_NORMAL_CLOSURE: Final = 1000

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
_EXPOSED_HEADERS: Final = (
    *("Allow", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"),
    "X-Request-ID",
)


class Direct:
    """Pass the requests of one path to its application, which responds to all its errors itself.

    They skip Starlette's router and exception handlers, which take a tenth of the time of a
    short request.
    """

    def __init__(self, app: ASGIApp, path: str, http: ASGIApp, websocket: ASGIApp) -> None:
        self.app = app
        self.path = path
        self.targets = {"http": http, "websocket": websocket}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        target = self.targets.get(scope["type"])
        if target and scope["path"].removeprefix(scope.get("root_path", "")) == self.path:
            return target(scope, receive, send)
        return self.app(scope, receive, send)


class FrontDoor:
    """Gives every request an id, and refuses an oversized URI or header section and a slow body.

    Uvicorn bounds none of them. The id is in `scope["state"]` and in the response as
    `X-Request-ID`; it is that of the request where this has one. `observe` is called when a request
    has ended, and is in `scope["state"]` of a WebSocket, for its operations.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_uri_bytes: int,
        max_header_bytes: int,
        max_receive_seconds: float,
        observe: Observe,
    ) -> None:
        self.app = app
        self.observe = observe
        self.max_uri_bytes = max_uri_bytes
        self.max_header_bytes = max_header_bytes
        self.max_receive_seconds = max_receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started_at = perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = ""
        error = self._error(scope, state)
        identifier = state["request_id"] = (
            state["request_id"] or f"{_PROCESS_ID}{next(_request_numbers):012x}"
        )
        sending = _Sending(send, state, identifier)
        try:
            if error:
                await _refuse(error, scope, receive, sending)
                return
            if scope["type"] != "http":
                state["observe"] = self.observe
            elif "is_received" not in state:
                receive = _in_time(scope, receive, self.max_receive_seconds)
            await self.app(scope, receive, sending)
        finally:
            self.observe(scope, sending.status, sending.size, started_at)

    def _error(self, scope: Scope, state: dict[str, Any]) -> ServiceError | None:
        """Return what the request exceeds. Keep the request's own id, if it has a sane one."""
        path = scope.get("raw_path") or scope["path"].encode()
        if len(path) + 1 + len(scope["query_string"]) > self.max_uri_bytes:
            return UriTooLong(f"The URI is longer than {self.max_uri_bytes} bytes; use POST.")
        headers = scope["headers"]
        for name, value in headers:
            if name == b"x-request-id" and _SANE_ID.fullmatch(value):
                state["request_id"] = value.decode()
        # 4 is what ": " and the line end add on the wire: many tiny headers are large too.
        if 4 * len(headers) + sum(map(len, chain.from_iterable(headers))) > self.max_header_bytes:
            return HeadersTooLarge(f"The headers are larger than {self.max_header_bytes} bytes.")
        return None


class _Sending:
    """Adds `X-Request-ID` and `X-Content-Type-Options: nosniff` to the response.

    It also has the header fields of the `quota` in the state of the request, which is told there
    that the response has begun. `status` is that of HTTP, or how a WebSocket was closed; `size` is
    the length of the body in bytes.
    """

    __slots__ = ("_headers", "_send", "_state", "size", "status")

    def __init__(self, send: Send, state: dict[str, Any], identifier: str) -> None:
        self._send = send
        self._state = state
        self.status = _GONE
        self.size = 0
        self._headers = (
            (b"x-request-id", identifier.encode()),
            (b"x-content-type-options", b"nosniff"),
        )

    def __call__(self, message: Message) -> Awaitable[None]:
        if "headers" in message:
            self._state["has_begun"] = True
            self.status = message.get("status", _SWITCHING_PROTOCOLS)
            message["headers"] = [*message["headers"], *self._headers]
            if quota := self._state.get("quota"):
                message["headers"] += quota.headers()
        elif "body" in message:
            self.size += len(message["body"])
        elif message["type"] == "websocket.close":
            self.status = message.get("code", _NORMAL_CLOSURE)
        elif message["type"] == "websocket.accept":
            self.status = _SWITCHING_PROTOCOLS
        return self._send(message)


class Faults:
    """Log an unexpected exception once, and respond with a problem. Needs FrontDoor around it.

    Starlette's own handler of faults raises them again after its answer, and Uvicorn then drops
    the connection with whatever was sent behind the request. Once a response has begun, nothing
    else is possible: its client must learn that it is cut.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            return  # nobody is left to answer, and nothing went wrong here
        except Exception as fault:
            if scope["type"] != "http" or "has_begun" in scope["state"]:
                raise
            identifier = request_id(scope)
            _log.exception(
                "Internal error in request %s",
                identifier,
                exc_info=fault,
                extra={"request_id": identifier},
            )
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

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override] # a coroutine less for each request
        if error := self._error(scope):
            return problem(error, request_id(scope))(scope, receive, send)
        if self.allow_origins:
            return super().__call__(scope, receive, send)
        return self.app(scope, receive, send)

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


def _in_time(scope: Scope, receive: Receive, seconds: float) -> Receive:
    """Return a `receive` that raises RequestTimeout when the body is not complete in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    is_complete = False

    async def receive_in_time() -> Message:
        nonlocal is_complete
        # The server says so when the whole request has come, as it usually has by now.
        if is_complete or "is_received" in scope["state"]:
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
