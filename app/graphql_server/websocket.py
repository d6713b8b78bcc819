"""Operations over WebSocket, by the graphql-transport-ws protocol."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.errors import InvalidInput, Reconnect, Unauthenticated
from app.graphql_server.endpoint import Operations, read_parameters
from app.graphql_server.errors import errors_of
from app.graphql_server.execution import Event
from app.graphql_server.streams import Guard, StreamLimits, each, encode_event, first_of
from app.http import encode_json, parse_json, request_id

PROTOCOL = "graphql-transport-ws"

BAD_REQUEST = 4400
UNAUTHORIZED = 4401
SUBPROTOCOL_NOT_ACCEPTABLE = 4406
INIT_TIMEOUT = 4408
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429
SERVICE_RESTART = 1012  # clients come again after it

_MAX_REASON_BYTES = 123  # RFC 6455 section 5.5
_MAX_ID_LENGTH = 256

ViewerT = TypeVar("ViewerT")


class _Close(Exception):
    """Ends the connection with a code that the protocol gives its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WebSocketEndpoint(Generic[ViewerT]):
    """An ASGI application for the WebSockets of one path."""

    operations: Operations[ViewerT]
    limits: StreamLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if PROTOCOL not in scope["subprotocols"]:
            await socket.accept()
            await socket.close(SUBPROTOCOL_NOT_ACCEPTABLE, f"The subprotocol is {PROTOCOL}.")
            return
        await socket.accept(PROTOCOL)
        try:
            await _Connection(socket, self.operations, self.limits).run()
        except _Close as close:
            await _close(socket, close.code, close.reason)
        except Unauthenticated as error:
            await _close(socket, UNAUTHORIZED, error.message)
        except Reconnect as error:
            await _close(socket, SERVICE_RESTART, error.message)
        except WebSocketDisconnect:
            return


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    text = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    try:
        await socket.close(code, text)
    except (RuntimeError, WebSocketDisconnect):
        return  # the other side was first


@dataclass(slots=True, eq=False)
class _Connection(Generic[ViewerT]):
    socket: WebSocket
    operations: Operations[ViewerT]
    limits: StreamLimits
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _ended: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def run(self) -> None:
        """Serve until one side ends it. Raises what the end is to be called."""
        viewer, guard = await self._initialise()
        await self._send({"type": "connection_ack"})
        try:
            await first_of(self._listen(viewer), guard.watch(), self._ended)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _initialise(self) -> tuple[ViewerT, Guard[ViewerT]]:
        try:
            async with asyncio.timeout(self.limits.init_timeout):
                while (message := await self._receive())["type"] in ("ping", "pong"):
                    await self._answer_ping(message)
        except TimeoutError:
            raise _Close(INIT_TIMEOUT, "Connection initialisation timeout") from None
        if message["type"] != "connection_init":
            raise _Close(UNAUTHORIZED, "connection_init must come first.")
        authorization = _authorization(self.socket, message.get("payload"))
        guard = Guard(self.operations.authenticate, authorization, self.limits.lifetime)
        return await self.operations.authenticate(authorization), guard

    async def _listen(self, viewer: ViewerT) -> None:
        handlers: Mapping[str, Callable[[dict[str, Any]], Any]] = {
            "ping": self._answer_ping,
            "pong": self._answer_ping,
            "subscribe": lambda message: self._subscribe(viewer, message),
            "complete": self._complete,
        }
        while True:
            message = await self._receive()
            if message["type"] == "connection_init":
                raise _Close(TOO_MANY_INITS, "Too many initialisation requests")
            handler = handlers.get(message["type"])
            if handler is None:
                raise _Close(BAD_REQUEST, "The message has a type that is not of the protocol.")
            await handler(message)

    async def _receive(self) -> dict[str, Any]:
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get("text") is None:
            raise _Close(BAD_REQUEST, "A message must be text.")
        try:
            document = parse_json(message["text"], "The message")
        except InvalidInput as error:
            raise _Close(BAD_REQUEST, error.message) from None
        if not isinstance(document, dict) or not isinstance(document.get("type"), str):
            raise _Close(BAD_REQUEST, "A message must be a JSON object with a type.")
        return document

    async def _send(self, message: dict[str, Any]) -> None:
        await self.socket.send_text(encode_json(message).decode())

    async def _answer_ping(self, message: dict[str, Any]) -> None:
        if message["type"] == "ping":
            payload = message.get("payload")
            await self._send({"type": "pong"} | ({"payload": payload} if payload else {}))

    async def _subscribe(self, viewer: ViewerT, message: dict[str, Any]) -> None:
        name, payload = message.get("id"), message.get("payload")
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_ID_LENGTH:
            raise _Close(BAD_REQUEST, f"The id must be 1 to {_MAX_ID_LENGTH} characters.")
        if not isinstance(payload, dict):
            raise _Close(BAD_REQUEST, "The payload must be an object.")
        if name in self._running:
            raise _Close(SUBSCRIBER_EXISTS, f"Subscriber for {name} already exists")
        if len(self._running) >= self.limits.subscriptions:
            limit = self.limits.subscriptions
            error = InvalidInput(f"The connection has {limit} operations, which is the limit.")
            await self._send({"id": name, "type": "error", "payload": errors_of(error, "")})
            return
        task = asyncio.create_task(self._operate(name, viewer, payload))
        self._running[name] = task
        task.add_done_callback(lambda _: self._running.pop(name, None))

    async def _complete(self, message: dict[str, Any]) -> None:
        if task := self._running.pop(str(message.get("id")), None):
            task.cancel()

    async def _operate(self, name: str, viewer: ViewerT, payload: dict[str, Any]) -> None:
        """Run one operation; its end is the client's or the operation's, or the connection's."""
        identifier = request_id(self.socket.scope)

        head = b'{"id":' + encode_json(name) + b',"type":"next","payload":'

        async def send(event: Event) -> None:
            message = head + encode_event(event, identifier) + b"}"
            await self.socket.send_text(message.decode())

        try:
            parameters = read_parameters(payload)
            events = await self.operations.start(self.socket, viewer, parameters)
            await each(events, send)
            await self._finish(name, {"id": name, "type": "complete"})
        except Reconnect as end:
            if not self._ended.done():
                self._ended.set_exception(end)
        except WebSocketDisconnect:
            return
        except Exception as error:
            answer = {"id": name, "type": "error", "payload": errors_of(error, identifier)}
            await self._finish(name, answer)

    async def _finish(self, name: str, message: dict[str, Any]) -> None:
        self._running.pop(name, None)  # the id is free before the client learns of the end
        await self._send(message)


def _authorization(connection: HTTPConnection, payload: object) -> str | None:
    """Read the token where the protocol has it, or in the header of the handshake."""
    if isinstance(payload, dict):
        for name, value in payload.items():
            if name.lower() == "authorization" and isinstance(value, str):
                return value
    return connection.headers.get("authorization")
