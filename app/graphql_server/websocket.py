"""Operations over WebSocket: the socket loop around the state machine of `transport_ws`."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Generic, NoReturn, TypeVar

from starlette.types import Receive, Scope, Send

from app.errors import (
    Busy,
    InternalError,
    RateLimited,
    Reconnect,
    TokenExpired,
    Unauthenticated,
)
from app.graphql_server import transport_ws
from app.graphql_server.errors import RequestErrors, code_of, errors_of, log_fault
from app.graphql_server.events import Event
from app.graphql_server.operations import Operations, Parameters, read_parameters
from app.graphql_server.streams import Guard, StreamLimits, each, encode_event, first_of
from app.graphql_server.transport_ws import PROTOCOL, Close, Operation, TransportWS
from app.http import header_value, note, request_id

SERVICE_RESTART = 1012  # clients connect again after it
INTERNAL_ERROR = 1011

_OK = 200
_BAD_REQUEST = 400
_GONE = 499

_MAX_REASON_BYTES = 123  # RFC 6455 section 5.5

ViewerT = TypeVar("ViewerT")


class _Closed(Exception):
    """The service closes the connection, with a code and a reason."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


class _Gone(Exception):
    """The client has closed the connection, or it broke."""


@dataclass(frozen=True, slots=True)
class WebSocketEndpoint(Generic[ViewerT]):
    """An ASGI application for the WebSockets of one path."""

    operations: Operations[ViewerT]
    limits: StreamLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        is_spoken = PROTOCOL in scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL if is_spoken else None})
        if is_spoken:
            socket = _Socket(scope, receive, send, self.operations, self.limits)
            close = await socket.serve()
        else:
            code = transport_ws.SUBPROTOCOL_NOT_ACCEPTABLE
            close = Close(code, f"The subprotocol is {PROTOCOL}.")
        if close:
            await _close(send, close)


async def _close(send: Send, close: Close) -> None:
    reason = close.reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
    try:
        await send({"type": "websocket.close", "code": close.code, "reason": reason})
    except (OSError, RuntimeError):
        return  # the client closed it first


class _Observed:
    """What is counted and logged of one operation. Its status is what HTTP would have."""

    def __init__(self, scope: Scope, viewer: object) -> None:
        state = {**scope.get("state", {}), "door": "websocket", "viewer": viewer}
        self.scope = {**scope, "state": state}
        self.started_at = perf_counter()
        self.status = _GONE
        self.size = 0

    def fail(self, error: Exception, code: str | None) -> None:
        note(self.scope, "code", code)
        is_bad = isinstance(error, RequestErrors)
        self.status = _BAD_REQUEST if is_bad else getattr(error, "status", InternalError.status)

    def end(self) -> None:
        if observe := self.scope["state"].get("observe"):
            observe(self.scope, self.status, self.size, self.started_at)


@dataclass(slots=True, eq=False)
class _Socket(Generic[ViewerT]):
    """One connection: reads messages in turn, and runs a task for each operation.

    While a client does not read, nothing is read from it. This bounds the memory of the connection:
    at most one message waits for each operation.
    """

    scope: Scope
    asgi_receive: Receive
    asgi_send: Send
    operations: Operations[ViewerT]
    limits: StreamLimits
    protocol: TransportWS = field(init=False)
    _tasks: dict[Operation, asyncio.Task[None]] = field(default_factory=dict)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _failed: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def __post_init__(self) -> None:
        self.protocol = TransportWS(self.limits.subscriptions)

    async def serve(self) -> Close | None:
        """Serve until one side ends it. Return how to close, or None if the client has gone."""
        try:
            authorization = await self._initialise()
            viewer = await self.operations.admit(self.scope, authorization)
            await self._write(self.protocol.acknowledge())
            guard = Guard(self.operations.authenticate, authorization, self.limits)
            await first_of(self._listen(viewer), self._watch(guard), self._failed)
        except _Gone:
            return None
        except Exception as error:
            return _closing(error, request_id(self.scope))
        finally:
            self.protocol.close()
            await self._stop_all()
        return None

    async def _initialise(self) -> str | None:
        """Wait for ConnectionInit, and return its Authorization."""
        try:
            async with asyncio.timeout(self.limits.init_timeout):
                while True:
                    match self.protocol.receive(await self._read()):
                        case transport_ws.Authenticate(payload):
                            return _authorization(self.scope, payload)
                        case transport_ws.Send(text):
                            await self._write(text)
                        case Close() as close:
                            raise _Closed(close)
        except TimeoutError:
            close = Close(transport_ws.INIT_TIMEOUT, "Connection initialisation timeout")
            raise _Closed(close) from None

    async def _watch(self, guard: Guard[ViewerT]) -> None:
        try:
            await guard.watch()
        except TokenExpired as error:
            raise _Closed(Close(transport_ws.FORBIDDEN, error.message)) from None

    async def _listen(self, viewer: ViewerT) -> NoReturn:
        while True:
            async with self._writing:
                pass  # the client has read everything that was sent before
            match self.protocol.receive(await self._read()):
                case transport_ws.Send(text):
                    await self._write(text)
                case transport_ws.Start(operation):
                    self._start(operation, viewer)
                case transport_ws.Stop(operation):
                    await self._stop(operation)
                case Close() as close:
                    raise _Closed(close)
            # Thousands of messages may arrive at once; others have their turn after each of them.
            await asyncio.sleep(0)

    def _start(self, operation: Operation, viewer: ViewerT) -> None:
        task = asyncio.create_task(self._operate(operation, viewer))
        self._tasks[operation] = task
        task.add_done_callback(partial(self._ended, operation))

    def _ended(self, operation: Operation, task: asyncio.Task[None]) -> None:
        self._tasks.pop(operation, None)
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)

    async def _stop(self, operation: Operation) -> None:
        """End an operation, and wait until it has released everything."""
        if task := self._tasks.get(operation):
            task.cancel()
            await asyncio.wait([task])

    async def _stop_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _operate(self, operation: Operation, viewer: ViewerT) -> None:
        """Run one operation. An exception ends the connection."""
        identifier = request_id(self.scope)
        observed = _Observed(self.scope, viewer)

        async def send(event: Event) -> None:
            result = encode_event(event, observed.scope)
            observed.size += len(result)
            await self._write(self.protocol.next(operation, result))

        try:
            if self.operations.limits:
                await self.operations.limits.count(observed.scope, viewer)
            parameters = read_parameters(operation.payload)
            operation.payload.clear()  # a subscription may last for hours
            starting = self._begin(observed.scope, viewer, parameters)
            await each(await self.operations.contexts.turn(viewer, starting), send)
        except (Reconnect, _Gone):
            raise
        except Exception as error:
            errors = errors_of(error, identifier)
            observed.fail(error, code_of(errors))
            await self._write(self.protocol.fail(operation, errors))
        else:
            observed.status = _OK
            await self._write(self.protocol.complete(operation))
        finally:
            observed.end()

    async def _begin(
        self, scope: Scope, viewer: ViewerT, parameters: Parameters
    ) -> AsyncGenerator[Event]:
        operation = await self.operations.find(scope, viewer, parameters)
        return await self.operations.start(scope, viewer, operation, parameters)

    async def _read(self) -> str | None:
        message = await self.asgi_receive()
        if message["type"] == "websocket.disconnect":
            raise _Gone
        text: str | None = message.get("text")
        return text

    async def _write(self, text: str | None) -> None:
        """Send a message, if there is one, and wait until the connection can take the next."""
        if text is None:
            return
        async with self._writing:
            try:
                await self.asgi_send({"type": "websocket.send", "text": text})
            except OSError:
                raise _Gone from None


def _closing(error: Exception, identifier: str) -> Close:
    match error:
        case _Closed():
            return error.close
        case Unauthenticated():
            return Close(transport_ws.UNAUTHORIZED, error.message)
        case Reconnect() | Busy() | RateLimited():
            return Close(SERVICE_RESTART, error.message)
    log_fault(error, identifier)
    return Close(INTERNAL_ERROR, "Internal error")


def _authorization(scope: Scope, payload: Mapping[str, Any]) -> str | None:
    """Return the Authorization of the ConnectionInit payload, or else of the handshake."""
    for name, value in payload.items():
        if name.lower() == "authorization" and isinstance(value, str):
            return value
    return header_value(scope, b"authorization")
