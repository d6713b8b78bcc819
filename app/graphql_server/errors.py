"""Turns exceptions into GraphQL errors. Nothing else does.

    RequestErrors   the document or the variables are wrong; nothing was executed
    ServiceError    the service's own family (app/errors.py), each with its code
    anything else   a fault: logged with its traceback, and masked

It knows no HTTP and no transport.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from graphql import ArgumentNode, GraphQLError, ValueNode
from strawberry.exceptions import StrawberryInputCoercionError

from app.errors import InternalError, InvalidInput, ServiceError

logger = logging.getLogger("app")

PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
OPERATION_NOT_RESOLVED: Final = "OPERATION_RESOLUTION_FAILURE"

MAX_ERRORS: Final = 100
"""Most errors in one response. One more error says how many were left out."""

_MAX_MESSAGE_LENGTH = 1000  # graphql-core quotes the names and values of the document

FormattedError = dict[str, Any]


class RequestErrors(Exception):
    """The request errors of the specification: execution did not begin, there is no `data`.

    `code` is for those of the errors that have none of their own.
    """

    def __init__(self, errors: Sequence[GraphQLError], code: str) -> None:
        super().__init__(code)
        self.errors = errors
        self.code = code


def errors_of(error: Exception, request_id: str) -> list[FormattedError]:
    """Return the errors of a response without data. A fault is logged and masked."""
    if isinstance(error, RequestErrors):
        return format_errors(error.errors, request_id, error.code)
    if isinstance(error, ServiceError):
        return [_formatted(error.message, error.extensions)]
    log_fault(error, request_id)
    return [_masked(request_id)]


def code_of(errors: Sequence[FormattedError]) -> str | None:
    """Return the code of the first error."""
    return errors[0]["extensions"]["code"] if errors else None


def format_errors(
    errors: Sequence[GraphQLError], request_id: str, code: str | None = None
) -> list[FormattedError]:
    """Return GraphQL errors for the client. Log each fault once, with its traceback.

    `code` is for errors of graphql-core. Without it the errors come from an execution, where only
    a wrong argument can be the client's mistake.
    """
    logged: set[object] = set()
    formatted = [_format(error, request_id, code, logged) for error in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        message = f"{len(errors) - MAX_ERRORS} more errors are left out."
        formatted.append(_formatted(message, formatted[-1]["extensions"]))
    return formatted


def _format(
    error: GraphQLError, request_id: str, code: str | None, logged: set[object]
) -> FormattedError:
    cause = cause_of(error)
    if isinstance(cause, ServiceError):
        return _formatted(_message(error, cause), cause.extensions, error)
    if language_code := _language_code(cause, code):
        return _formatted(error.message, {"code": language_code}, error)
    # One failed batch load fails many fields, and one faulty field fails in every item of a list.
    marks = {id(cause), tuple(key for key in error.path or () if isinstance(key, str))}
    if logged.isdisjoint(marks):
        log_fault(cause, request_id)
    logged |= marks
    return _masked(request_id, error)


def _message(error: GraphQLError, cause: ServiceError) -> str:
    """Return the message. For a wrong value it keeps the path, but does not quote the value."""
    where, wrapped, _ = error.message.partition("Expected value of type '")
    return where + cause.message if wrapped else cause.message


def _masked(request_id: str, error: GraphQLError | None = None) -> FormattedError:
    masked = InternalError()
    return _formatted(masked.message, {"code": masked.code, "requestId": request_id}, error)


def _formatted(
    message: str, extensions: dict[str, Any], error: GraphQLError | None = None
) -> FormattedError:
    if len(message) > _MAX_MESSAGE_LENGTH:
        message = f"{message[: _MAX_MESSAGE_LENGTH - 3]}..."
    document: FormattedError = {"message": message}
    if error and error.locations:
        document["locations"] = [location.formatted for location in error.locations]
    if error and error.path:
        document["path"] = error.path
    document["extensions"] = extensions
    return document


def is_fault(error: FormattedError) -> bool:
    return bool(error["extensions"]["code"] == InternalError.code)


def log_fault(fault: Exception, request_id: str) -> None:
    logger.error(
        "Internal error in request %s",
        request_id,
        exc_info=fault,
        extra={"request_id": request_id},
    )


def cause_of(error: Exception) -> Exception:
    """Return the original exception, which graphql-core may have wrapped several times."""
    while isinstance(error, GraphQLError) and error.original_error is not None:
        error = error.original_error
    return error


def _language_code(cause: Exception, code: str | None) -> str | None:
    """Return the code of an error of the language, None for a fault.

    graphql-core reports a resolver that returned a wrong value, quoting that value, by the same
    class as a client's wrong argument; only the latter points at a value in the document.
    """
    if not isinstance(cause, GraphQLError):
        return None
    if code is not None:
        return code
    is_argument = any(isinstance(node, ValueNode | ArgumentNode) for node in cause.nodes or ())
    return (
        InvalidInput.code
        if is_argument or isinstance(cause, StrawberryInputCoercionError)
        else None
    )
