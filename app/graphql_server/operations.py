"""Finds, executes and starts operations, over whatever protocol they came."""

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from graphql import OperationType
from starlette.types import Scope

from app.errors import DeadlineExceeded, InvalidInput, QueryTooComplex
from app.expiry import Deadline, Expiry
from app.graphql_server.compiler import Result
from app.graphql_server.documents import Documents
from app.graphql_server.errors import RequestErrors
from app.graphql_server.events import Event
from app.graphql_server.execution import Executor, event_of
from app.graphql_server.kept_documents import KeptDocuments
from app.graphql_server.parser import Operation, select_operation
from app.http import idempotency_key, note, require_idempotency_key
from app.json_text import encode_json

ViewerT = TypeVar("ViewerT", bound=Hashable)
ViewerT_contra = TypeVar("ViewerT_contra", contravariant=True)
T = TypeVar("T")


_KEY: Final = "idempotencyKey"

_MAX_KEPT_BYTES: Final = 16 * 1024


class Parameters(NamedTuple):
    """The parameters of a request; None stands for absent."""

    query: str | None
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None
    document_id: str | None


class Contexts(Protocol[ViewerT_contra]):
    """Makes the objects that resolvers get as `info.context`, and runs operations with them."""

    def turn(self, viewer: ViewerT_contra, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Return what `work` returns, begun when it is the viewer's turn. Raises Busy."""

    def charge(self, viewer: ViewerT_contra, seconds: float) -> None:
        """Note that another thread has spent processor time for the viewer."""

    def query(
        self,
        scope: Scope,
        viewer: ViewerT_contra,
        execute: Callable[[object], Awaitable[T]],
    ) -> Awaitable[T]:
        """Return what `execute` returns for a context. It may call it twice, with two contexts."""

    async def mutation(
        self,
        scope: Scope,
        viewer: ViewerT_contra,
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        """Return what `execute` returns for a context. It calls it once."""

    async def mutation_once(
        self,
        scope: Scope,
        viewer: ViewerT_contra,
        key: str,
        request: Sequence[object],
        execute: Callable[[object], Awaitable[bytes | T]],
    ) -> bytes | T:
        """Return what `execute` returns for a context, or what it returned before.

        The same request under the same idempotency key gets the same bytes. `request` is what makes
        it the same, as JSON values.
        """

    def subscription(self, scope: Scope, viewer: ViewerT_contra) -> Any:
        """Return the context of a subscription. `event` renews it for each event."""

    async def event(self, context: Any, execute: Callable[[], Awaitable[T]]) -> T:
        """Return what `execute` returns for one event. It may call it twice."""


class Limits(Protocol[ViewerT_contra]):
    """Limits how much a viewer may ask for. What is over a limit raises ServiceError."""

    async def count(self, scope: Scope, viewer: ViewerT_contra) -> None:
        """Count a request, before it is read."""

    async def spend(self, scope: Scope, cost: int) -> None:
        """Spend the cost of an operation, before it is executed."""

    def spend_refused(self, scope: Scope, characters: int) -> None:
        """Charge for a document of that length that was refused."""


@dataclass(frozen=True, slots=True)
class Operations(Generic[ViewerT]):
    """Finds, executes and starts operations, for HTTP, WebSocket and server-sent events.

    `admit` lets a connection in by its Authorization header, and `authenticate` looks again whether
    the header is still valid. `deadline` is that of queries.
    """

    executor: Executor
    documents: Documents
    admit: Callable[[Scope, str | None], Awaitable[ViewerT]]
    authenticate: Callable[[str | None], Awaitable[ViewerT]]
    contexts: Contexts[ViewerT]
    deadline: Expiry
    limits: Limits[ViewerT] | None = None
    kept_documents: KeptDocuments = field(default_factory=KeptDocuments)

    async def find(self, scope: Scope, viewer: ViewerT, parameters: Parameters) -> Operation:
        """Return the operation, and spend its cost. Raises ServiceError and RequestErrors."""
        text = self.documents.find(parameters.query, parameters.document_id, parameters.extensions)
        parser = self.executor.parser
        try:
            if (operations := parser.known(text)) is None:
                operations = await parser.parse(text, partial(self.contexts.charge, viewer))
            operation = select_operation(operations, parameters.operation_name)
        except (RequestErrors, QueryTooComplex):
            if self.limits:
                self.limits.spend_refused(scope, len(text))
            raise
        note(scope, "operation", operation.name)
        if self.limits:
            await self.limits.spend(scope, operation.cost)
        return operation

    async def execute(
        self,
        scope: Scope,
        viewer: ViewerT,
        operation: Operation,
        parameters: Parameters,
        key: str | None = None,
    ) -> Result | bytes:
        """Execute a query or a mutation. Raises ServiceError and RequestErrors.

        A mutation with an idempotency key is executed unless that was done before. Its response
        document is returned, or a result if that has errors.
        """

        def execute(context: object) -> Awaitable[Result]:
            return self.executor.execute(
                operation, parameters.variables, context, parameters.extensions
            )

        if operation.kind is OperationType.MUTATION:
            # A mutation has no deadline: what is committed must be reported.
            if key is None:
                return await self.contexts.mutation(scope, viewer, execute)
            request = operation.text, operation.name, parameters.variables or {}
            return await self.contexts.mutation_once(
                scope, viewer, key, request, lambda context: _document(execute(context))
            )
        try:
            with Deadline(self.deadline):
                return await self.contexts.query(scope, viewer, execute)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The query was cancelled after {self.deadline.seconds:g} seconds."
            ) from None

    async def start(
        self,
        scope: Scope,
        viewer: ViewerT,
        operation: Operation,
        parameters: Parameters,
    ) -> AsyncGenerator[Event]:
        """Return the events of an operation of any kind. Raises ServiceError and RequestErrors."""
        if operation.kind is not OperationType.SUBSCRIPTION:
            key = key_of(operation, scope, parameters)
            execute = partial(self.execute, scope, viewer, operation, parameters, key)
            return _once(lambda: self.contexts.turn(viewer, execute()))
        _require_small(parameters)
        context = self.contexts.subscription(scope, viewer)
        events = await self.executor.subscribe(
            operation,
            parameters.variables,
            context,
            viewer,
            parameters.extensions,
            around_event=partial(self.contexts.event, context),
        )
        self.kept_documents.keep(viewer, operation.text, events)
        return events


async def _document(executed: Awaitable[Result]) -> Result | bytes:
    """Return the response document of a result, or the result if it has errors."""
    result = await executed
    return result if result.errors else encode_json({"data": result.data})


async def _once(execute: Callable[[], Awaitable[Result | bytes]]) -> AsyncGenerator[Event]:
    found = await execute()
    yield Event(found) if isinstance(found, bytes) else event_of(found)


# The parameters


def _require_small(parameters: Parameters) -> None:
    """Raise InvalidInput where a subscription would hold too much memory for as long as it lasts.

    A body in JSON may take twenty times its size in memory, and a token may have 1,000 of them.
    """
    try:
        size = len(encode_json([parameters.variables, parameters.extensions]))
    except RecursionError:
        raise InvalidInput("The variables are nested too deeply.", path=("variables",)) from None
    if size > _MAX_KEPT_BYTES:
        raise InvalidInput(
            f"variables and extensions take {size} bytes; the limit for a subscription is "
            f"{_MAX_KEPT_BYTES}.",
            path=("variables",),
        )


def key_of(operation: Operation, scope: Scope, parameters: Parameters) -> str | None:
    """Return the idempotency key of a mutation, None where there is none. Raises InvalidInput.

    It is in a header of an HTTP request, or in `extensions`: over WebSocket a request has no
    headers, and those of the handshake belong to all requests of the connection.
    """
    if operation.kind is not OperationType.MUTATION:
        return None
    header = idempotency_key(scope) if scope["type"] == "http" else None
    given = (parameters.extensions or {}).get(_KEY)
    if given is None:
        return header
    key = require_idempotency_key(given, f"extensions.{_KEY} must be", "extensions", _KEY)
    if header not in (None, key):
        raise InvalidInput(
            f"The header Idempotency-Key and extensions.{_KEY} differ: send one of them.",
            path=("extensions", _KEY),
        )
    return key


_TYPES: Final[Mapping[str, type]] = {
    "query": str,
    "operationName": str,
    "variables": dict,
    "extensions": dict,
    "documentId": str,
    "doc_id": str,
}


def read_parameters(values: Mapping[str, object]) -> Parameters:
    """Check the types of the parameters. Unknown ones are ignored, as the specification says."""
    for name, value in values.items():
        type_ = _TYPES.get(name)
        if type_ and value is not None and not isinstance(value, type_):
            kind = "a string" if type_ is str else "an object"
            raise InvalidInput(f"{name} must be {kind}.", path=(name,))
    get: Callable[[str], Any] = values.get
    # Some clients send "" for no operation; no operation can have that name.
    return Parameters(
        get("query") or None,
        get("operationName") or None,
        get("variables"),
        get("extensions"),
        # The name of the specification, then what Relay's documentation sends.
        get("documentId") or get("doc_id") or _text(get("id")),
    )


def _text(value: object) -> str | None:
    """Return a text; other types are taken for absent, since other tools use the name too."""
    return value if isinstance(value, str) else None
