"""Creates the application: the only place where the parts are put together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from app.activity.input_limits import InputLimits
from app.activity.values import utc_now
from app.admission import Admission, Admit
from app.auth import Viewer
from app.authentication import Authenticate, Authentication
from app.errors import (
    QueryTooComplex,
)
from app.expiry import Expiry
from app.graphql.context import Contexts
from app.graphql.queries import LIST_SIZES
from app.graphql.schema import schema
from app.graphql_server.complexity import QueryLimits
from app.graphql_server.documents import Documents, ManifestUnusable, read_manifest
from app.graphql_server.endpoint import GraphQLEndpoint
from app.graphql_server.errors import RequestErrors
from app.graphql_server.execution import Executor
from app.graphql_server.graphiql import graphiql_page, graphiql_routes
from app.graphql_server.operations import Operations
from app.graphql_server.streams import StreamLimits
from app.graphql_server.websocket import WebSocketEndpoint
from app.health import Health, health_routes
from app.identity.tokens import TokenVerifier
from app.measures import Requests
from app.metrics import measure_with
from app.middleware import CrossOrigin, Direct, Faults, FrontDoor
from app.observation import observer
from app.problems import EXCEPTION_HANDLERS
from app.rate_limits import RateLimit, RateLimits
from app.rest import REST_EXCEPTION_HANDLERS, rest_routes
from app.settings import Settings
from app.shared_counts import SharedCounts
from app.spans import Spans
from app.store.database import open_database
from app.store.engine import Database
from app.store.feed import Feed
from app.store.key_sweeper import KeySweeper
from app.store.long_reads import ReadLimits
from app.store.postgresql_options import PostgresqlOptions
from app.store.reader import Reader, charge_nobody
from app.store.timeline_cache import TimelineCache
from app.store.writer import Writer
from app.timeline import Timeline
from app.turns import Turns

_log = logging.getLogger(__name__)


class Service(Starlette):
    """Starlette without its own response to faults, which `Faults` gives."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ExceptionMiddleware(self.router, self.exception_handlers)
        for middleware, args, kwargs in reversed(self.user_middleware):
            app = middleware(app, *args, **kwargs)
        return app


def create_app(
    settings: Settings,
    clock: Callable[[], datetime] = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    tracing: Any = None,
) -> Starlette:
    """Return the service on a migrated database, which is opened when the lifespan begins.

    `state.health` of it is told of a shutdown first, so that /readyz says so. Then
    `state.end_streams` ends what would otherwise never end. Raises DatabaseUnusable for a wrong
    address and ManifestUnusable.
    """
    turns = Turns(settings.query_deadline_seconds)
    if settings.opentelemetry and tracing is None:
        # Imported only where it is needed: it is an optional extra of the package.
        tracing = import_module("app.tracing").tracing_from_environment()
    timeline = create_timeline(settings, clock, turns.charge, tracing)
    providers = settings.identity_providers
    verifier = TokenVerifier.of(providers) if providers else None
    authenticate = Authentication(timeline.reader, timeline.writer, clock, verifier).authenticate
    shared = _shared_counts(settings)
    admission = _admission(settings, authenticate, shared, monotonic)
    admit = admission.admit if admission else lambda _scope, header: authenticate(header)
    limits = _rate_limits(settings, shared, monotonic)
    contexts = Contexts(timeline, settings.query_deadline_seconds, turns)
    traced = tracing.contexts(contexts) if tracing else contexts
    graphql = _graphql_endpoint(traced, authenticate, admit, limits, settings)
    websocket = WebSocketEndpoint(graphql.operations, graphql.streams)
    health = Health(timeline)
    requests = Requests()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with (
            tracing.running() if tracing else nullcontext(),
            running(timeline),
            verifier or nullcontext(),
            shared.running() if shared else nullcontext(),
        ):
            yield

    app = Service(
        routes=[
            *(graphiql_routes() if settings.graphiql else ()),
            *rest_routes(timeline, admit, limits, turns, max_body_bytes=settings.max_body_bytes),
            *health_routes(health),
        ],
        middleware=[
            *((Middleware(tracing.requests),) if tracing else ()),
            Middleware(
                FrontDoor,
                max_uri_bytes=settings.max_uri_bytes,
                max_header_bytes=settings.max_header_bytes,
                max_receive_seconds=settings.max_receive_seconds,
                observe=observer(requests, turns.charge),
            ),
            Middleware(CrossOrigin, origins=[*filter(None, settings.cors_origins.split(","))]),
            Middleware(Faults),
            Middleware(Direct, path="/graphql", http=graphql, websocket=websocket),
        ],
        exception_handlers=EXCEPTION_HANDLERS | REST_EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # Starlette sends /graphql/ to whatever address the Host header names.
    app.router.redirect_slashes = False
    app.state.timeline = timeline
    app.state.turns = turns
    app.state.health = health
    app.state.shared_counts = shared
    app.state.measure = measure_with(
        timeline, graphql.operations.executor, requests, admission, shared
    )
    app.state.end_streams = timeline.feed.close
    return app


def open_settings_database(settings: Settings) -> Database:
    """Return the database that the settings name. Raises DatabaseUnusable for a wrong address."""
    return open_database(
        settings.database_url,
        PostgresqlOptions(
            connect_seconds=settings.database_connect_seconds,
            lock_seconds=settings.database_lock_seconds,
            statement_seconds=settings.database_statement_seconds,
            answer_seconds=settings.database_answer_seconds,
            poll_seconds=settings.database_poll_seconds,
            listens=settings.database_listen,
            is_pooled=settings.database_pooler,
        ),
    )


def input_limits(settings: Settings) -> InputLimits:
    return InputLimits(
        max_message_length=settings.max_message_length,
        max_metadata_bytes=settings.max_metadata_bytes,
        max_metadata_depth=settings.max_metadata_depth,
    )


def create_timeline(
    settings: Settings,
    clock: Callable[[], datetime] = utc_now,
    charge: Callable[[str, float], None] = charge_nobody,
    spans: Spans | None = None,
) -> Timeline:
    """Return the use cases with their reader, writer and feed. Raises DatabaseUnusable."""
    reader = Reader(
        open_settings_database(settings),
        ReadLimits(
            connections=settings.read_connections,
            long_connections=settings.long_read_connections,
            long_reads_per_token=settings.max_long_reads_per_token,
            queue_size=settings.read_queue_size,
            search_characters=settings.max_search_characters,
        ),
        charge,
        spans,
    )
    limits = input_limits(settings)
    feed = Feed(reader)
    writer = Writer(
        reader.database,
        limits,
        clock,
        queue_size=settings.write_queue_size,
        wait_seconds=settings.write_wait_seconds,
        batch_size=settings.write_batch_size,
        max_answer_bytes=settings.max_idempotent_answer_bytes,
        published=feed.publish,
        spans=spans,
    )
    return Timeline(
        reader,
        writer,
        feed,
        limits,
        clock,
        max_streams=settings.max_subscriptions_per_token,
        cache=TimelineCache(settings.timeline_cache_bytes),
        sweeper=KeySweeper(
            writer,
            reader,
            clock,
            timedelta(hours=settings.idempotency_hours),
            settings.max_idempotency_keys_per_token,
        ),
    )


@asynccontextmanager
async def running(timeline: Timeline) -> AsyncIterator[None]:
    """Run the reader, the writer and the feed around a block.

    At the end, finish what waits and close the database.
    """
    try:
        await timeline.open()
        async with asyncio.TaskGroup() as readers:
            reading = readers.create_task(timeline.reader.run())
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(timeline.writer.run())
                    tasks.create_task(timeline.feed.run())
                    sweeping = tasks.create_task(timeline.sweeper.run())
                    try:
                        yield
                    finally:
                        sweeping.cancel()
                        timeline.feed.close()
                        timeline.writer.close()
            finally:
                reading.cancel()
    finally:
        await timeline.reader.database.close()


def _admission(
    settings: Settings,
    authenticate: Authenticate,
    shared: SharedCounts | None,
    clock: Callable[[], float],
) -> Admission | None:
    failures = settings.rate_limit_failures
    if not failures:
        return None
    return Admission(authenticate, RateLimit("failures", failures, clock, shared))


def _shared_counts(settings: Settings) -> SharedCounts | None:
    url = settings.rate_limit_redis_url
    limits = (
        settings.rate_limit_requests,
        settings.rate_limit_cost,
        settings.rate_limit_failures,
    )
    return SharedCounts(url) if url and any(limits) else None


def _rate_limits(
    settings: Settings, shared: SharedCounts | None, clock: Callable[[], float]
) -> RateLimits | None:
    requests, cost = settings.rate_limit_requests, settings.rate_limit_cost
    if not requests and not cost:
        return None
    return RateLimits(
        clock,
        requests=RateLimit("requests", requests, clock, shared) if requests else None,
        cost=RateLimit("cost", cost, clock, shared) if cost else None,
    )


def _graphql_endpoint(
    contexts: Contexts,
    authenticate: Authenticate,
    admit: Admit,
    limits: RateLimits | None,
    settings: Settings,
) -> GraphQLEndpoint[Viewer]:
    executor = Executor(
        schema,
        cache_size=settings.document_cache_size,
        limits=QueryLimits(
            depth=settings.max_query_depth,
            root_fields=settings.max_query_root_fields,
            aliases=settings.max_query_aliases,
            directives=settings.max_query_directives,
            cost=settings.max_query_cost,
            fields=settings.max_query_fields,
            fragments=settings.max_query_fragments,
            tokens=settings.max_query_tokens,
        ),
        list_sizes=LIST_SIZES,
        max_response_bytes=settings.max_response_bytes,
        allow_introspection=settings.introspection,
        hide_suggestions=not settings.suggestions,
        interpreted_first=settings.interpreted_first,
    )
    return GraphQLEndpoint(
        operations=Operations(
            executor=executor,
            documents=_documents(settings, executor),
            admit=admit,
            authenticate=authenticate,
            limits=limits,
            contexts=contexts,
            deadline=Expiry(settings.query_deadline_seconds),
        ),
        streams=StreamLimits(
            subscriptions=settings.max_subscriptions_per_connection,
            init_timeout=settings.connection_init_seconds,
            keep_alive=settings.keep_alive_seconds,
            lifetime=settings.max_stream_seconds,
        ),
        max_body_bytes=settings.max_body_bytes,
        page=graphiql_page if settings.graphiql else None,
    )


def _documents(settings: Settings, executor: Executor) -> Documents:
    """Read the trusted documents; each must be one that the service can execute."""
    path = settings.trusted_documents
    if settings.trusted_documents_only and not path:
        raise ManifestUnusable(
            "TICKET_ACTIVITY_TRUSTED_DOCUMENTS_ONLY needs TICKET_ACTIVITY_TRUSTED_DOCUMENTS."
        )
    trusted = read_manifest(path) if path else {}
    for key, text in trusted.items():
        try:
            executor.parser.parse_operations(text)
        except RequestErrors as error:
            raise ManifestUnusable(f"{path}: document {key}: {error.errors[0].message}") from None
        except QueryTooComplex as error:
            raise ManifestUnusable(f"{path}: document {key}: {error.message}") from None
    return Documents(
        cache_size=settings.persisted_query_cache_size,
        trusted=trusted,
        is_trusted_only=settings.trusted_documents_only,
    )
