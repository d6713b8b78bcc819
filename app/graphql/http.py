"""The GraphQL door: GraphQL over HTTP (first release, September 2026), GET and POST."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import InvalidInput, MethodNotAllowed, NotAcceptable, ServiceError
from app.graphql.execution import Executor, RequestErrors, format_errors
from app.http import JSON, encode_json, parse_json, preferred_type, read_json, request_id

GRAPHQL_RESPONSE_JSON = "application/graphql-response+json"
HTML = "text/html"

_BAD_REQUEST = 400

ViewerT = TypeVar("ViewerT")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request; null stands for absent."""

    query: str
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class GraphQLEndpoint(Generic[ViewerT]):
    """An ASGI application for one path."""

    executor: Executor
    authenticate: Callable[[str | None], Awaitable[ViewerT]]
    make_context: Callable[[Request, ViewerT], Any]
    max_body_bytes: int
    page: Callable[[], Response] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if self._wants_page(request) and self.page:
            return self.page()
        media_type = JSON
        try:
            _require_method(request)
            media_type = _media_type(request)
            return await self._answer(request, media_type)
        except ServiceError as error:
            return _refusal(request, error, media_type)
        except RequestErrors as error:
            errors = format_errors(error.errors, request_id(request.scope), error.code)
            return _document({"errors": errors}, _BAD_REQUEST, media_type)

    def _wants_page(self, request: Request) -> bool:
        if request.method not in ("GET", "HEAD") or "query" in request.query_params:
            return False
        accept = request.headers.get("accept")
        return preferred_type(accept, (GRAPHQL_RESPONSE_JSON, JSON, HTML)) == HTML

    async def _answer(self, request: Request, media_type: str) -> Response:
        # Whoever has no token is told so before any of the work that a document can cause.
        viewer = await self.authenticate(request.headers.get("authorization"))
        parameters = await self._parameters(request)
        operation = self.executor.prepare(parameters.query, parameters.operation_name)
        _require_allowed(operation.kind, request)
        context = self.make_context(request, viewer)
        result = await self.executor.execute(operation, parameters.variables, context)
        document: dict[str, Any] = {"data": result.data}
        if result.errors:
            errors = format_errors(result.errors, request_id(request.scope))
            document = {"errors": errors, **document}
        return _document(document, 200, media_type)

    async def _parameters(self, request: Request) -> Parameters:
        if request.method != "POST":
            return _read_parameters(_query_parameters(request))
        body = await read_json(request, self.max_body_bytes)
        if not isinstance(body, dict):
            raise InvalidInput("The body must be a JSON object.")
        return _read_parameters(body)


def _require_method(request: Request) -> None:
    if request.method not in ("GET", "HEAD", "POST"):
        raise MethodNotAllowed("Send GET or POST.", allow="GET, HEAD, POST")


def _media_type(request: Request) -> str:
    accept = ", ".join(request.headers.getlist("accept")) or None
    media_type = preferred_type(accept, (JSON, GRAPHQL_RESPONSE_JSON))
    if media_type is None:
        raise NotAcceptable(f"The answer is {GRAPHQL_RESPONSE_JSON} or {JSON}.")
    return media_type


def _require_allowed(kind: OperationType, request: Request) -> None:
    if kind is OperationType.MUTATION and request.method != "POST":
        raise MethodNotAllowed("A mutation must be sent by POST.", allow="POST")


def _query_parameters(request: Request) -> dict[str, Any]:
    """Read the URL's parameters; `variables` and `extensions` hold JSON."""
    parameters: dict[str, Any] = dict(request.query_params)
    for name in ("variables", "extensions"):
        if text := parameters.get(name):
            parameters[name] = parse_json(text, name)
    return {name: value for name, value in parameters.items() if value != ""}


def _read_parameters(values: dict[str, Any]) -> Parameters:
    query = _typed(values, "query", str, "a string")
    if not query:
        raise InvalidInput("query must be a non-empty string.", path=("query",))
    return Parameters(
        query,
        _typed(values, "operationName", str, "a string"),
        _typed(values, "variables", dict, "an object"),
        _typed(values, "extensions", dict, "an object"),
    )


def _typed(values: dict[str, Any], name: str, kind: type[Any], article: str) -> Any:
    value = values.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"{name} must be {article}.", path=(name,))
    return value


def _refusal(request: Request, error: ServiceError, media_type: str) -> Response:
    """Answer what failed before execution. Bad input is 400 here, as the specification has it."""
    status = _BAD_REQUEST if isinstance(error, InvalidInput) else error.status
    extensions = {"code": error.code, "requestId": request_id(request.scope)}
    document = {"errors": [{"message": error.message, "extensions": extensions}]}
    return _document(document, status, media_type, error.headers)


def _document(
    document: dict[str, Any], status: int, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        encode_json(document),
        status,
        {**(headers or {}), "Content-Type": f"{media_type}; charset=utf-8", "Vary": "Accept"},
    )
