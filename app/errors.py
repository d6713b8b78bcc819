"""Every error a client may see: one small family, each with its code and HTTP status.

The doors translate the family in one place each; whatever is not in it is a fault.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """An error whose message is written for the client.

    `path` names the offending argument from the outside in, without the GraphQL `input` wrapper:
    `("metadata", "a", 0)`. `headers` go into the HTTP response as they are.
    """

    code: ClassVar[str]
    status: ClassVar[int]

    def __init__(
        self,
        message: str,
        *,
        path: tuple[str | int, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.headers = dict(headers or {})

    @property
    def extensions(self) -> dict[str, Any]:
        """What graphql-core copies into the `extensions` of a top-level error."""
        return {"code": self.code}


class UserError(ServiceError):
    """An expected outcome: data (`userErrors`) in a GraphQL payload, a problem document in REST."""


class NotFound(UserError):
    code, status = "NOT_FOUND", 404


class Forbidden(UserError):
    """`reasons` are the names that the message explains, for programs."""

    code, status = "FORBIDDEN", 403

    def __init__(
        self, message: str, *, reasons: Sequence[str], path: tuple[str | int, ...] = ()
    ) -> None:
        super().__init__(message, path=path)
        self.reasons = reasons


class VersionConflict(UserError):
    """`current` is the entry as it stands, for the client to merge with.

    Only `If-Match` can lead to it through the REST door, hence 412 (RFC 9110 section 13.1.1).
    """

    code, status = "VERSION_CONFLICT", 412

    def __init__(self, message: str, *, path: tuple[str | int, ...], current: Any) -> None:
        super().__init__(message, path=path)
        self.current = current


class InvalidInput(UserError):
    code, status = "INVALID_INPUT", 422


class IdTaken(UserError):
    code, status = "ID_TAKEN", 409


class Unauthenticated(ServiceError):
    code, status = "UNAUTHENTICATED", 401

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class RouteNotFound(ServiceError):
    code, status = "NOT_FOUND", 404


class InternalError(ServiceError):
    """What a client learns of a fault: nothing but the id to find it in the log by."""

    code, status = "INTERNAL", 500

    def __init__(self) -> None:
        super().__init__("Internal error")


class MethodNotAllowed(ServiceError):
    """`allow` is the value of the `Allow` header (RFC 9110 section 15.5.6 demands it)."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message, headers={"Allow": allow})


class NotAcceptable(ServiceError):
    code, status = "NOT_ACCEPTABLE", 406


class RequestTimeout(ServiceError):
    """The connection ends with it: what still arrives belongs to no request."""

    code, status = "REQUEST_TIMEOUT", 408

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class CrossOriginRefused(ServiceError):
    code, status = "CROSS_ORIGIN_REFUSED", 400


class PayloadTooLarge(ServiceError):
    code, status = "PAYLOAD_TOO_LARGE", 413


class UriTooLong(ServiceError):
    code, status = "URI_TOO_LONG", 414


class UnsupportedMediaType(ServiceError):
    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class HeadersTooLarge(ServiceError):
    code, status = "REQUEST_HEADER_FIELDS_TOO_LARGE", 431


class QueryTooComplex(ServiceError):
    code, status = "QUERY_TOO_COMPLEX", 400


class ResponseTooLarge(ServiceError):
    """The answer would be longer than one may be. What a mutation wrote stands all the same."""

    code, status = "RESPONSE_TOO_LARGE", 400


class DocumentNotTrusted(ServiceError):
    code, status = "DOCUMENT_NOT_TRUSTED", 400


class PersistedQueryNotFound(ServiceError):
    """The client sends the query along next. The protocol fixes message and code; it is no 4xx."""

    code, status = "PERSISTED_QUERY_NOT_FOUND", 200


class PersistedQueryNotSupported(ServiceError):
    """The client stops naming queries by their hash. The protocol fixes message and code."""

    code, status = "PERSISTED_QUERY_NOT_SUPPORTED", 200


class DeadlineExceeded(ServiceError):
    code, status = "DEADLINE_EXCEEDED", 503


class TooManyStreams(ServiceError):
    code, status = "TOO_MANY_SUBSCRIPTIONS", 429


class Reconnect(ServiceError):
    """A stream ends though there is more to come: resume it after the last cursor."""

    code, status = "RECONNECT", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1"})


class StorageFull(ServiceError):
    """The disk is full: nothing was written, and nothing will be before the operator acts."""

    code, status = "STORAGE_FULL", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "30"})


class WriteInDoubt(ServiceError):
    """The COMMIT was interrupted: the write is on disk or it is not. Read before repeating it."""

    code, status = "WRITE_IN_DOUBT", 500


class CommittedUnread(ServiceError):
    """A mutation is on disk, but a part of its payload could not be read. Do not repeat it."""

    code, status = "COMMITTED_UNREAD", 503


class Busy(ServiceError):
    """The write queue is full, the database is locked, or the service is closing: try again."""

    code, status = "BUSY", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1"})
