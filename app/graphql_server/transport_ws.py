"""The server's side of the graphql-transport-ws protocol, as a state machine without I/O.

The protocol: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md. The socket loop
passes each message it reads to `receive`, carries out the returned action, and gets the text of
each message to send from the other methods.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, TypeAlias

from app.errors import InvalidInput, TooManyStreams
from app.json_text import encode_json, parse_json

PROTOCOL: Final = "graphql-transport-ws"

BAD_REQUEST: Final = 4400
UNAUTHORIZED: Final = 4401  # clients do not connect again
FORBIDDEN: Final = 4403  # clients connect again, where they can with a fresh token
SUBPROTOCOL_NOT_ACCEPTABLE: Final = 4406
INIT_TIMEOUT: Final = 4408
SUBSCRIBER_EXISTS: Final = 4409
TOO_MANY_INITS: Final = 4429

_MAX_ID_LENGTH: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An accepted Subscribe message. Two of them are never equal: an id may be used again."""

    id: str
    payload: dict[str, Any]
    next_head: str


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check the token in the payload of ConnectionInit, then send `acknowledge()` or close."""

    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Send:
    text: str


@dataclass(frozen=True, slots=True)
class Start:
    operation: Operation


@dataclass(frozen=True, slots=True)
class Stop:
    operation: Operation


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


Action: TypeAlias = Authenticate | Send | Start | Stop | Close


class _State(Enum):
    OPENED = auto()
    INITIALISED = auto()
    ACKNOWLEDGED = auto()
    CLOSED = auto()


class _Breach(Exception):
    """The message breaks the protocol, which closes the connection with a code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.close = Close(code, reason)


@dataclass(slots=True)
class TransportWS:
    """One connection: its state and the operations that are open on it."""

    max_operations: int
    _state: _State = _State.OPENED
    _open: dict[str, Operation] = field(default_factory=dict)

    def receive(self, text: str | None) -> Action | None:
        """Return the action that a message asks for. `text` is None for a binary message."""
        if self._state is _State.CLOSED:
            return None
        try:
            return self._receive(_parse(text))
        except _Breach as breach:
            self.close()
            return breach.close

    def close(self) -> None:
        """End all operations, and accept no more messages."""
        self._state = _State.CLOSED
        self._open.clear()

    def acknowledge(self) -> str:
        """Return the ConnectionAck message, after the token was accepted."""
        self._state = _State.ACKNOWLEDGED
        return _text({"type": "connection_ack"})

    def next(self, operation: Operation, result: bytes) -> str | None:
        """Return the Next message with an encoded result; None where the operation has ended."""
        return operation.next_head + result.decode() + "}" if self._is_open(operation) else None

    def complete(self, operation: Operation) -> str | None:
        """End an operation and return the Complete message; None where it had ended before."""
        return self._end(operation, {"id": operation.id, "type": "complete"})

    def fail(self, operation: Operation, errors: list[dict[str, Any]]) -> str | None:
        """End an operation and return the Error message; None where it had ended before."""
        return self._end(operation, {"id": operation.id, "type": "error", "payload": errors})

    def _is_open(self, operation: Operation) -> bool:
        return self._open.get(operation.id) is operation

    def _end(self, operation: Operation, message: dict[str, Any]) -> str | None:
        if not self._is_open(operation):
            return None
        del self._open[operation.id]
        return _text(message)

    def _receive(self, message: dict[str, Any]) -> Action | None:
        match message["type"]:
            case "ping":
                return _pong(message)
            case "pong":
                _optional_payload(message)
                return None
            case "connection_init":
                return self._initialise(message)
            case "subscribe":
                return self._subscribe(message)
            case "complete":
                return self._stop(message)
        raise _Breach(BAD_REQUEST, "The message has a type that a client may not send.")

    def _initialise(self, message: dict[str, Any]) -> Authenticate:
        if self._state is not _State.OPENED:
            raise _Breach(TOO_MANY_INITS, "Too many initialisation requests")
        payload = _optional_payload(message)
        self._state = _State.INITIALISED
        return Authenticate(payload)

    def _subscribe(self, message: dict[str, Any]) -> Start | Send:
        if self._state is not _State.ACKNOWLEDGED:
            raise _Breach(UNAUTHORIZED, "Unauthorized: the connection is not acknowledged.")
        name, payload = _id(message), message.get("payload")
        if not isinstance(payload, dict):
            raise _Breach(BAD_REQUEST, "The payload of subscribe must be an object.")
        if name in self._open:
            raise _Breach(SUBSCRIBER_EXISTS, f"Subscriber for {name} already exists")
        if len(self._open) >= self.max_operations:
            return Send(_text({"id": name, "type": "error", "payload": [self._too_many()]}))
        head = '{"id":' + encode_json(name).decode() + ',"type":"next","payload":'
        self._open[name] = operation = Operation(name, payload, head)
        return Start(operation)

    def _too_many(self) -> dict[str, Any]:
        error = TooManyStreams(
            f"The connection has {self.max_operations} operations, which is the limit."
        )
        return {"message": error.message, "extensions": error.extensions}

    def _stop(self, message: dict[str, Any]) -> Stop | None:
        # An operation may end while the client's Complete is on its way.
        operation = self._open.pop(_id(message), None)
        return Stop(operation) if operation else None


def _parse(text: str | None) -> dict[str, Any]:
    if text is None:
        raise _Breach(BAD_REQUEST, "A message must be text.")
    try:
        message = parse_json(text, "The message")
    except InvalidInput as error:
        raise _Breach(BAD_REQUEST, error.message) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise _Breach(BAD_REQUEST, "A message must be a JSON object with a type.")
    return message


def _id(message: dict[str, Any]) -> str:
    name = message.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_ID_LENGTH:
        raise _Breach(BAD_REQUEST, f"The id must be 1 to {_MAX_ID_LENGTH} characters.")
    return name


def _optional_payload(message: dict[str, Any]) -> dict[str, Any]:
    payload = message.get("payload")
    if payload is not None and not isinstance(payload, dict):
        raise _Breach(BAD_REQUEST, f"The payload of {message['type']} must be an object.")
    return payload or {}


def _pong(message: dict[str, Any]) -> Send:
    payload = _optional_payload(message)
    return Send(_text({"type": "pong"} | ({"payload": payload} if payload else {})))


def _text(message: dict[str, Any]) -> str:
    return encode_json(message).decode()
