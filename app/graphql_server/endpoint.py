"""GraphQL over HTTP (first release, September 2026), by GET, HEAD and POST.

Two responses differ from the specification and follow the public `graphql-http` audits: 400 where
it has 422, and 200 for request errors if the client accepts only application/json.
"""

from collections.abc import (
    Callable,
    Hashable,
    Mapping,
)
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import (
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    NotAcceptable,
    ServiceError,
)
from app.graphql_server.compiler import Result
from app.graphql_server.errors import (
    FormattedError,
    RequestErrors,
    code_of,
    errors_of,
    format_errors,
    is_fault,
)
from app.graphql_server.operations import Operations, Parameters, key_of, read_parameters
from app.graphql_server.sse import EVENT_STREAM, EventStreamResponse, event_stream_head
from app.graphql_server.streams import Guard, StreamLimits
from app.http import (
    JSON,
    REQUEST_BODY,
    header_value,
    header_values,
    note,
    preferred_type,
    read_json_text,
    request_id,
)
from app.json_text import encode_json, parse_json

GRAPHQL_RESPONSE_JSON = "application/graphql-response+json"
HTML = "text/html"

_BAD_REQUEST = 400
_PARTIAL_SUCCESS = 294  # named by the specification; clients that do not know it treat it as 200

ViewerT = TypeVar("ViewerT", bound=Hashable)


_RESPONSE_TYPES: Final[tuple[str, ...]] = (JSON, GRAPHQL_RESPONSE_JSON, EVENT_STREAM)

_HEADERS: Final = {
    media_type: [
        (b"content-type", f"{media_type}; charset=utf-8".encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Accept"),
    ]
    for media_type in (JSON, GRAPHQL_RESPONSE_JSON)
}


@dataclass(slots=True)
class GraphQLResponse:
    """A response with prepared headers. Starlette's own class builds them for each response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


AnyResponse: TypeAlias = Response | EventStreamResponse | GraphQLResponse


class _Head(NamedTuple):
    """What is known of a request before its body is parsed. `media_type` is the response's."""

    scope: Scope
    accept: str | None
    media_type: str
    authorization: str | None


@dataclass(frozen=True, slots=True)
class GraphQLEndpoint(Generic[ViewerT]):
    """An ASGI application for one path.

    `page` responds to a browser that asks for HTML without a query; it needs no token.
    """

    operations: Operations[ViewerT]
    streams: StreamLimits
    max_body_bytes: int
    page: Callable[[], Response] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope, receive)
        if scope["method"] == "HEAD" and isinstance(response, Response | GraphQLResponse):
            response.body = b""  # the headers stay those of GET
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> AnyResponse:
        """Return the response. All errors become responses here."""
        media_type = JSON  # until the Accept header is read
        try:
            _require_method(scope)
            accept = _accept(scope)
            media_type = self._media_type(scope, accept)
            if media_type == HTML and self.page:
                return self.page()
            # Before the body: nothing is read or parsed for a client without a token.
            authorization = header_value(scope, b"authorization")
            viewer = await self.operations.admit(scope, authorization)
            note(scope, "viewer", viewer)
            if self.operations.limits:
                await self.operations.limits.count(scope, viewer)
            body = await self._body(scope, receive)
            head = _Head(scope, accept, media_type, authorization)
            return await self.operations.contexts.turn(viewer, self._answer(head, viewer, body))
        except ClientDisconnect:
            raise
        except Exception as error:
            return _not_executed(error, scope, _single(media_type))

    def _media_type(self, scope: Scope, accept: str | None) -> str:
        offered = _RESPONSE_TYPES
        if self.page and scope["method"] != "POST" and "query" not in Request(scope).query_params:
            offered += (HTML,)
        media_type = preferred_type(accept, offered)
        if media_type is None:
            raise NotAcceptable(
                f"The response is {GRAPHQL_RESPONSE_JSON}, {JSON} or {EVENT_STREAM}."
            )
        return media_type

    async def _answer(self, head: _Head, viewer: ViewerT, body: bytes | None) -> AnyResponse:
        scope = head.scope
        parameters = _parameters(scope, body)
        operation = await self.operations.find(scope, viewer, parameters)
        _require_allowed(operation.kind, head)
        if head.media_type != EVENT_STREAM and operation.kind is not OperationType.SUBSCRIPTION:
            key = key_of(operation, scope, parameters)
            result = await self.operations.execute(scope, viewer, operation, parameters, key)
            return _executed(result, head)
        if scope["method"] == "HEAD":
            return event_stream_head()
        note(scope, "door", "sse")
        return EventStreamResponse(
            await self.operations.start(scope, viewer, operation, parameters),
            Guard(self.operations.authenticate, head.authorization, self.streams),
            self.streams.keep_alive,
            scope,
        )

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read the body of a POST.

        Only JSON is read. A browser sends it to another origin only after a preflight, so a form or
        a plain text cannot run a mutation.
        """
        if scope["method"] != "POST":
            return None
        return await read_json_text(scope, receive, self.max_body_bytes)


# The request


def _parameters(scope: Scope, body: bytes | None) -> Parameters:
    if body is None:
        return read_parameters(_url_parameters(scope))
    values = parse_json(body, REQUEST_BODY)
    if not isinstance(values, dict):
        raise InvalidInput("The body must be a JSON object; batches are not supported.")
    return read_parameters(values)


def _accept(scope: Scope) -> str | None:
    return ", ".join(header_values(scope, b"accept")) or None


def _single(media_type: str) -> str:
    """Return the content type of a response that is no stream."""
    return JSON if media_type == EVENT_STREAM else media_type


def _require_method(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD", "POST"):
        raise MethodNotAllowed("Send a query by POST or GET.", allow="GET, HEAD, POST")


def _require_allowed(kind: OperationType, head: _Head) -> None:
    if kind is OperationType.SUBSCRIPTION and not _accepts_stream(head.accept):
        raise InvalidInput(
            f"A subscription has many responses: accept {EVENT_STREAM}, or use WebSocket."
        )
    if kind is OperationType.MUTATION and head.scope["method"] != "POST":
        raise MethodNotAllowed("A mutation must be sent by POST.", allow="POST")


def _accepts_stream(accept: str | None) -> bool:
    return accept is not None and preferred_type(accept, (EVENT_STREAM,)) is not None


def _url_parameters(scope: Scope) -> dict[str, object]:
    """Read the parameters in the URL. An empty one is absent; two of them hold JSON."""
    try:
        query = scope["query_string"].decode()
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput("The query of the URL is not valid UTF-8.") from None
    parameters: dict[str, object] = {}
    for name, value in pairs:
        if name in parameters:
            raise InvalidInput(f"{name} is given more than once.", path=(name,))
        is_json = name in ("variables", "extensions") and value
        parameters[name] = parse_json(value, name) if is_json else value or None
    return parameters


# The response


def _executed(result: Result | bytes, head: _Head) -> GraphQLResponse:
    """Respond to an executed operation: 2xx even if fields failed and `data` is null."""
    media_type = head.media_type
    if isinstance(result, bytes):
        return _encoded_response(result, 200, media_type)
    if not result.errors:
        return _response({"data": result.data}, 200, media_type)
    errors = format_errors(result.errors, request_id(head.scope))
    note(head.scope, "code", code_of(errors))
    status = _PARTIAL_SUCCESS if media_type == GRAPHQL_RESPONSE_JSON else 200
    return _response({"errors": errors, "data": result.data}, status, media_type)


def _not_executed(error: Exception, scope: Scope, media_type: str) -> GraphQLResponse:
    """Respond to what failed before the execution, without `data`."""
    errors = errors_of(error, request_id(scope))
    note(scope, "code", code_of(errors))
    headers = error.headers if isinstance(error, ServiceError) else {}
    return _response({"errors": errors}, _status(error, errors, media_type), media_type, headers)


def _status(error: Exception, errors: list[FormattedError], media_type: str) -> int:
    """Return the HTTP status. Bad input has 400 here, but 422 in REST."""
    if any(map(is_fault, errors)):
        return InternalError.status
    if isinstance(error, RequestErrors):
        return 200 if media_type == JSON else _BAD_REQUEST
    if isinstance(error, ServiceError) and not isinstance(error, InvalidInput):
        return error.status
    return _BAD_REQUEST


def _response(
    document: dict[str, Any], status: int, media_type: str, headers: Mapping[str, str] | None = None
) -> GraphQLResponse:
    return _encoded_response(encode_json(document), status, media_type, headers)


def _encoded_response(
    body: bytes, status: int, media_type: str, headers: Mapping[str, str] | None = None
) -> GraphQLResponse:
    fields = [*_HEADERS[media_type], (b"content-length", b"%d" % len(body))]
    if headers:
        fields += [
            (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
        ]
    return GraphQLResponse(status, fields, body)
