"""Records traces with OpenTelemetry: requests, operations, batches of the store, and statements.

It needs the extra `opentelemetry`. The names are those of OpenTelemetry's semantic conventions for
HTTP, GraphQL and databases. No span holds a message, metadata, a token, a document or the query of
a URL; a statement is its text, with placeholders for the values.
"""

import asyncio
import os
import re
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from opentelemetry import propagate
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import Viewer
from app.graphql.context import Context, Contexts
from app.rest import ACTIVITY_PATH
from app.spans import Within, Work

T = TypeVar("T")

_SERVICE: Final = "ticket-activity"
_HEALTH: Final = ("/healthz", "/readyz")
_HEADERS: Final = (b"traceparent", b"tracestate", b"baggage")
_FAULT: Final = 500
_SHUT_DOWN_SECONDS: Final = 3
_MAX_LENGTH: Final = 2000  # of an attribute that a client chooses, or a statement
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+\"?(\w+)", re.IGNORECASE)
_SPAN: Final = "span"


def tracing_from_environment() -> "Tracing":
    """Return what sends spans by OTLP over HTTP, as the variables `OTEL_…` say."""
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


class Tracing:
    """Makes the spans of one process, for a processor of OpenTelemetry's SDK."""

    def __init__(self, processor: SpanProcessor) -> None:
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": _SERVICE}
        resource = Resource.create({"service.version": version(_SERVICE), **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_SERVICE, version(_SERVICE))
        self._statements = _Statements(self._tracer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record statements while a block runs, and send at its end what was recorded."""
        self._statements.listen()
        try:
            yield
        finally:
            self._statements.stop()
            await self._shut_down()

    async def _shut_down(self) -> None:
        """Send what was recorded, if the collector takes it in time."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any longer
                loop.call_soon_threadsafe(ended.set)

        # The process ends without it: a collector that is away would hold it for a quarter minute.
        threading.Thread(target=shut_down, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SHUT_DOWN_SECONDS):
                await ended.wait()

    def requests(self, app: ASGIApp) -> ASGIApp:
        return _TracedRequests(app, self._tracer)

    def contexts(self, contexts: Contexts) -> "_TracedContexts":
        return _TracedContexts(contexts, self._tracer)

    def origin(self) -> Span:
        return get_current_span()

    @contextmanager
    def batch(self, name: str, origins: Iterable[Span]) -> Iterator[Within]:
        """See `app.spans`. What one caller asked for is a part of its trace.

        What several share is a trace of its own, and both are linked.
        """
        spans = [*{id(span): span for span in origins if _is_recording(span)}.values()]
        if not spans:
            yield lambda work: work
            return
        is_shared = len(spans) > 1
        parent = TraceContext() if is_shared else set_span_in_context(spans[0])
        links = [Link(span.get_span_context()) for span in spans] if is_shared else []
        size = {"ticket_activity.batch.size": len(spans)}
        with _span(self._tracer, name, parent, links=links, attributes=size) as batch:
            for span in spans if is_shared else ():
                span.add_link(batch.get_span_context())
            yield partial(_within, set_span_in_context(batch))


def _is_recording(span: Span | None) -> bool:
    return span is not None and span.is_recording()


def _within(context: TraceContext, work: Work) -> Work:
    def run(*arguments: Any) -> Any:
        token = attach(context)
        try:
            return work(*arguments)
        finally:
            detach(token)

    return run


@contextmanager
def _span(
    tracer: Tracer, name: str, context: TraceContext | None = None, **options: Any
) -> Iterator[Span]:
    """Run a block in a span. Of an error it has the type alone: messages may quote users."""
    with tracer.start_as_current_span(
        name, context, record_exception=False, set_status_on_exception=False, **options
    ) as span:
        try:
            yield span
        except Exception as error:
            _note_error(span, getattr(error, "code", None) or type(error).__name__)
            raise


def _note_error(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


# Requests


class _TracedRequests:
    """A span for each HTTP request and WebSocket, in the trace that its `traceparent` names."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] not in ("http", "websocket") or path in _HEALTH:
            await self._app(scope, receive, send)
            return
        sent = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _HEADERS
        }
        attributes = _of_request(scope, path)
        name = " ".join(filter(None, (attributes["http.request.method"], _route(path))))
        with _span(
            self._tracer,
            name,
            propagate.extract(sent),
            kind=SpanKind.SERVER,
            attributes=attributes,
        ) as span:

            async def noting(message: Message) -> None:
                if "status" in message:
                    _note_status(span, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                _note_outcome(span, scope.get("state", {}))


def _route(path: str) -> str | None:
    if path.startswith("/v1/"):
        return ACTIVITY_PATH
    return path if path in ("/graphql", "/openapi.json") else None


def _of_request(scope: Scope, path: str) -> dict[str, Any]:
    found = {
        "http.request.method": scope.get("method", "GET"),
        "http.route": _route(path),
        "url.path": scope["path"][:_MAX_LENGTH],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope.get("http_version"),
        "client.address": (scope.get("client") or (None,))[0],
        "server.address": (scope.get("server") or (None,))[0],
        "server.port": (scope.get("server") or (None, None))[1],
    }
    for name, value in scope["headers"]:
        if name == b"user-agent":
            found["user_agent.original"] = value.decode("latin-1")[:_MAX_LENGTH]
    return {name: value for name, value in found.items() if value is not None}


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _FAULT:
        _note_error(span, str(status))


def _note_outcome(span: Span, state: dict[str, Any]) -> None:
    """Note what the log says of the request, too."""
    viewer: Viewer | None = state.get("viewer")
    noted = {
        "ticket_activity.request_id": state.get("request_id"),
        "ticket_activity.actor_id": str(viewer.actor_id) if viewer else None,
        "ticket_activity.code": state.get("code"),
    }
    span.set_attributes({name: value for name, value in noted.items() if value})


# Operations


class _TracedContexts:
    """A span around the execution of each GraphQL operation, and of each event."""

    def __init__(self, contexts: Contexts, tracer: Tracer) -> None:
        self._contexts = contexts
        self._tracer = tracer
        self._names: WeakKeyDictionary[Context, str | None] = WeakKeyDictionary()

    async def turn(self, viewer: Viewer, work: Coroutine[Any, Any, T]) -> T:
        return await self._contexts.turn(viewer, work)

    def charge(self, viewer: Viewer, seconds: float) -> None:
        self._contexts.charge(viewer, seconds)

    async def query(
        self,
        scope: Scope,
        viewer: Viewer,
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        with self._span("query", _name_of(scope)):
            return await self._contexts.query(scope, viewer, execute)

    async def mutation(
        self,
        scope: Scope,
        viewer: Viewer,
        execute: Callable[[object], Awaitable[T]],
    ) -> T:
        with self._span("mutation", _name_of(scope)):
            return await self._contexts.mutation(scope, viewer, execute)

    async def mutation_once(
        self,
        scope: Scope,
        viewer: Viewer,
        key: str,
        request: Sequence[object],
        execute: Callable[[object], Awaitable[bytes | T]],
    ) -> bytes | T:
        with self._span("mutation", _name_of(scope)):
            return await self._contexts.mutation_once(scope, viewer, key, request, execute)

    def subscription(self, scope: Scope, viewer: Viewer) -> Context:
        context = self._contexts.subscription(scope, viewer)
        self._names[context] = _name_of(scope)
        return context

    async def event(self, context: Context, execute: Callable[[], Awaitable[T]]) -> T:
        with self._span("subscription", self._names.get(context)):
            return await self._contexts.event(context, execute)

    @contextmanager
    def _span(self, kind: str, name: str | None) -> Iterator[None]:
        attributes = {"graphql.operation.type": kind}
        if name:
            attributes["graphql.operation.name"] = name
        # The name is the client's choice, so it is no part of the span's name.
        with _span(self._tracer, kind, attributes=attributes):
            yield


def _name_of(scope: Scope) -> str | None:
    name: str | None = scope["state"].get("operation")
    return name and name[:_MAX_LENGTH]


# Statements


class _Statements:
    """A span for each statement that runs within another span."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._listeners = (
            ("before_cursor_execute", self._begin),
            ("after_cursor_execute", self._end),
            ("handle_error", self._fail),
        )

    def listen(self) -> None:
        for name, listener in self._listeners:
            event.listen(Engine, name, listener)

    def stop(self) -> None:
        for name, listener in self._listeners:
            event.remove(Engine, name, listener)

    def _begin(
        self,
        connection: Any,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        executemany: bool,  # noqa: FBT001, RUF100
    ) -> None:
        if not get_current_span().is_recording():
            return  # nobody asked for it, such as the look for changes by other processes
        operation, table = _summary(statement)
        attributes = {
            "db.system.name": connection.dialect.name,
            "db.operation.name": operation,
            "db.query.text": statement[:_MAX_LENGTH],
            "db.query.summary": " ".join(filter(None, (operation, table))),
        }
        if table:
            attributes["db.collection.name"] = table
        if executemany:
            attributes["db.operation.batch.size"] = len(parameters)
        connection.info[_SPAN] = self._tracer.start_span(
            attributes["db.query.summary"], kind=SpanKind.CLIENT, attributes=attributes
        )

    def _end(self, connection: Any, *_of_statement: Any) -> None:
        if span := connection.info.pop(_SPAN, None):
            span.end()

    def _fail(self, failure: Any) -> None:
        span = failure.connection.info.pop(_SPAN, None) if failure.connection else None
        if span:
            _note_error(span, type(failure.original_exception).__name__)
            span.end()


@lru_cache(maxsize=256)
def _summary(statement: str) -> tuple[str, str]:
    """Return what a statement does, and its first table, if it names one."""
    operation, _, _ = statement.lstrip().partition(" ")
    found = _TABLE.search(statement)
    return operation.split("\n")[0].upper(), found[1] if found else ""
