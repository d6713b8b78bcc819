"""Every error that a client may see, with its code and its HTTP status.

ServiceError
    UserError                   expected; in a mutation, data instead of an error
        NotFound                404  there is no such object, or the viewer may not see it
        Forbidden               403  a scope is missing, or the entry is somebody else's
        VersionConflict         412  the entry has another version by now
        InvalidInput            422  an argument breaks a rule
        IdTaken                 409  another object has the id
        TicketMerged            409  the ticket was merged into another one
    CursorExpired               410  what came after the cursor is not all kept any more
    IdempotencyKeyReused        422  the key came with another request before
    TooManyIdempotencyKeys      429  the token has used too many keys of late
    RateLimited                 429  the token, or the address, has sent too much of late
    Unauthenticated             401  there is no valid token
        TokenExpired            401  it was valid until now: a fresh one is worth a try
    RouteNotFound               404  there is nothing at the path
    MethodNotAllowed            405
    NotAcceptable               406
    RequestTimeout              408  the request arrives too slowly
    PayloadTooLarge             413
    UriTooLong                  414
    UnsupportedMediaType        415
    HeadersTooLarge             431
    CrossOriginRefused          400  a CORS preflight asks for what is not allowed
    QueryTooComplex             400  a GraphQL operation exceeds a limit
    ResponseTooLarge            400  the response exceeds a limit
    DocumentNotTrusted          400  the document is not in the manifest
    PersistedQueryNotFound      200  the client sends the query next
    PersistedQueryNotSupported  200  the client sends queries without hashes from then on
    DeadlineExceeded            503  a query takes too long
    TooManyStreams              429  the token has too many subscriptions open
    Reconnect                   503  a stream ends early: resume it
    Busy                        503  try again; nothing was written
    StorageFull                 503  the disk is full; nothing was written
    StorageUnwritable           503  the disk takes no writes; nothing was written
    WriteInDoubt                500  the write is stored, or it is not
    CommittedUnread             503  the write is stored, a part of its payload was not read
    InternalError               500  a fault; the log has its traceback

GraphQL and REST each translate these in one place. Any other exception is a fault, except an
OperatorError, which ends a command or the start of the service.
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
    """An expected outcome: in `userErrors` of a GraphQL payload, a problem in REST."""


class NotFound(UserError):
    code, status = "NOT_FOUND", 404


class Forbidden(UserError):
    """`reasons` are the names of the reasons that the message explains."""

    code, status = "FORBIDDEN", 403

    def __init__(
        self, message: str, *, reasons: Sequence[str], path: tuple[str | int, ...] = ()
    ) -> None:
        super().__init__(message, path=path)
        self.reasons = reasons


class VersionConflict(UserError):
    """`current` is the current entry, for the client to merge its change with.

    In REST only `If-Match` leads to it, hence 412 (RFC 9110 section 13.1.1).
    """

    code, status = "VERSION_CONFLICT", 412

    def __init__(self, message: str, *, path: tuple[str | int, ...], current: Any) -> None:
        super().__init__(message, path=path)
        self.current = current


class InvalidInput(UserError):
    code, status = "INVALID_INPUT", 422


class IdTaken(UserError):
    code, status = "ID_TAKEN", 409


class TicketMerged(UserError):
    """The message names the ticket that it was merged into."""

    code, status = "TICKET_MERGED", 409


def user_error(
    code: str, message: str, *, path: tuple[str | int, ...], reasons: Sequence[str], current: Any
) -> UserError:
    """Return the expected error of a code, as it was before it was stored."""
    if code == Forbidden.code:
        return Forbidden(message, reasons=reasons, path=path)
    if code == VersionConflict.code:
        return VersionConflict(message, path=path, current=current)
    [error] = [error for error in UserError.__subclasses__() if error.code == code]
    return error(message, path=path)


class CursorExpired(ServiceError):
    """A cursor leads nowhere any more: what comes after it was removed, or a restore undid it."""

    code, status = "CURSOR_EXPIRED", 410

    def __init__(
        self,
        reason: str = "The changes after this cursor are not all kept any more",
        then: str = "read the timeline anew, and go on after its changesCursor",
    ) -> None:
        super().__init__(f"{reason}: {then}.", path=("after",))


class IdempotencyKeyReused(ServiceError):
    code, status = "IDEMPOTENCY_KEY_REUSED", 422

    def __init__(self) -> None:
        super().__init__(
            "The idempotency key came with another request before; send each request with a key "
            "of its own."
        )


class TooManyIdempotencyKeys(ServiceError):
    code, status = "TOO_MANY_IDEMPOTENCY_KEYS", 429


class RateLimited(ServiceError):
    """More than a limit for a minute allows. It can be sent again after `seconds`."""

    code, status = "RATE_LIMITED", 429

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, headers={"Retry-After": str(seconds)})
        self.seconds = seconds

    @property
    def extensions(self) -> dict[str, Any]:
        """Say it to clients of WebSocket and server-sent events, who get no header."""
        return {"code": self.code, "retryAfter": self.seconds}


class Unauthenticated(ServiceError):
    code, status = "UNAUTHENTICATED", 401

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class TokenExpired(Unauthenticated):
    """The token was valid once. A stream that it began ends so that its client connects again."""

    def __init__(self) -> None:
        super().__init__("The token has expired; send a fresh one.")


class RouteNotFound(ServiceError):
    code, status = "NOT_FOUND", 404


class InternalError(ServiceError):
    """What a client is told of a fault: nothing. The request id finds it in the log."""

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
    """The response closes the connection, because the rest of the request may still arrive."""

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
    """The response would exceed the limit. What a mutation wrote is stored all the same."""

    code, status = "RESPONSE_TOO_LARGE", 400


class DocumentNotTrusted(ServiceError):
    code, status = "DOCUMENT_NOT_TRUSTED", 400


class PersistedQueryNotFound(ServiceError):
    """The client then sends the query too. The protocol fixes code, message and status."""

    code, status = "PERSISTED_QUERY_NOT_FOUND", 200


class PersistedQueryNotSupported(ServiceError):
    """The client then stops sending hashes. The protocol fixes code and message."""

    code, status = "PERSISTED_QUERY_NOT_SUPPORTED", 200


class DeadlineExceeded(ServiceError):
    code, status = "DEADLINE_EXCEEDED", 503


class TooManyStreams(ServiceError):
    code, status = "TOO_MANY_SUBSCRIPTIONS", 429


class Reconnect(ServiceError):
    """A stream ends before it is complete: the client resumes it after the last cursor."""

    code, status = "RECONNECT", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1"})


class StorageFull(ServiceError):
    """The disk is full. Nothing was written; the operator must make room."""

    code, status = "STORAGE_FULL", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "30"})


class StorageUnwritable(ServiceError):
    """The disk takes no writes: it is read-only, or broken. Nothing was written."""

    code, status = "STORAGE_UNWRITABLE", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "30"})


class WriteInDoubt(ServiceError):
    """The COMMIT was interrupted: the write may be on disk. Read before sending it again."""

    code, status = "WRITE_IN_DOUBT", 500


class CommittedUnread(ServiceError):
    """The mutation is stored, but a part of its payload could not be read. Do not send it again."""

    code, status = "COMMITTED_UNREAD", 503


class Busy(ServiceError):
    """A queue is full, the database is locked, or the service shuts down. Nothing was written."""

    code, status = "BUSY", 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1"})


class OperatorError(Exception):
    """Something that the operator must fix. The message is one line for them; no client sees it."""
