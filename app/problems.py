"""Errors as RFC 9457 problems, for every path except GraphQL."""

from http import HTTPStatus
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import Forbidden, MethodNotAllowed, RouteNotFound, ServiceError
from app.http import note, request_id
from app.json_text import encode_json

PROBLEM_JSON: Final = "application/problem+json"

# Python renamed these phrases in 3.13; RFC 9110 has one name for each.
_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


def problem(error: ServiceError, request_id: str) -> Response:
    """Build the application/problem+json response for an error of the family."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _PHRASES.get(error.status) or HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    if error.path:
        document["path"] = list(error.path)
    if isinstance(error, Forbidden):
        document["reasons"] = list(error.reasons)
    document["requestId"] = request_id
    response = _Problem(encode_json(document), error.status, error.headers, PROBLEM_JSON)
    response.code = error.code
    return response


class _Problem(Response):
    """Notes its code for the log."""

    code = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note(scope, "code", self.code)
        await super().__call__(scope, receive, send)


_NO_ROUTE: Final = (
    "There is nothing at this path. The service is at /graphql and at "
    "/v1/crm/tickets/{ticketId}/activity/{activityId}, which /openapi.json describes."
)


async def _answer_service_error(request: Request, error: Exception) -> Response:
    return problem(cast("ServiceError", error), request_id(request.scope))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Translate what Starlette's router raises: a path or a method that no route has."""
    raised = cast("HTTPException", error)
    if raised.status_code == MethodNotAllowed.status:
        # The router keeps methods in a set, whose order differs between processes.
        allow = ", ".join(sorted((raised.headers or {}).get("Allow", "").split(", ")))
        message = f"{request.method} is not among the methods here: {allow}."
        return problem(MethodNotAllowed(message, allow=allow), request_id(request.scope))
    return problem(RouteNotFound(_NO_ROUTE), request_id(request.scope))


EXCEPTION_HANDLERS: Final[Any] = {
    ServiceError: _answer_service_error,
    HTTPException: _answer_http_exception,
}
