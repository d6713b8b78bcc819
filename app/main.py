"""The application as data: the only place where the parts are put together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.activity.limits import InputLimits
from app.activity.values import utc_now
from app.auth import Viewer
from app.errors import InternalError, MethodNotAllowed, RouteNotFound, ServiceError
from app.graphql.context import Context
from app.graphql.execution import Executor
from app.graphql.graphiql import graphiql_page, graphiql_routes
from app.graphql.http import GraphQLEndpoint
from app.graphql.schema import schema
from app.http import RequestBounds, problem, request_id
from app.rest import rest_routes
from app.settings import Settings
from app.store.database import open_database
from app.store.writer import Writer
from app.timeline import Timeline

_log = logging.getLogger(__name__)


def create_app(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """Build the service on a migrated database. Nothing is opened before its lifespan begins."""
    timeline = create_timeline(settings, clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with running(timeline):
            yield

    return Starlette(
        routes=[
            Route("/graphql", _graphql_endpoint(timeline, settings)),
            *(graphiql_routes() if settings.graphiql else ()),
            *rest_routes(timeline, max_body_bytes=settings.max_body_bytes),
        ],
        middleware=[
            Middleware(
                RequestBounds,
                max_uri_bytes=settings.max_uri_bytes,
                max_header_bytes=settings.max_header_bytes,
            )
        ],
        exception_handlers=_EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )


def create_timeline(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Timeline:
    """Put the floors below the doors together. Raises DatabaseUnusable for a wrong address."""
    database = open_database(settings.database_url, read_connections=settings.read_connections)
    limits = InputLimits(
        max_message_length=settings.max_message_length,
        max_metadata_bytes=settings.max_metadata_bytes,
        max_metadata_depth=settings.max_metadata_depth,
    )
    writer = Writer(
        database,
        limits,
        clock,
        queue_size=settings.write_queue_size,
        batch_size=settings.write_batch_size,
    )
    return Timeline(database, writer, limits, clock)


@asynccontextmanager
async def running(timeline: Timeline) -> AsyncIterator[None]:
    """Run the writer around a block; at the end, finish what waits and close the database."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(timeline.writer.run())
            try:
                yield
            finally:
                timeline.writer.close()
    finally:
        await timeline.database.close()


def _graphql_endpoint(timeline: Timeline, settings: Settings) -> GraphQLEndpoint[Viewer]:
    def make_context(_request: Request, viewer: Viewer) -> Context:
        return Context(timeline, viewer)

    return GraphQLEndpoint(
        executor=Executor(schema, cache_size=settings.document_cache_size),
        authenticate=timeline.authenticate,
        make_context=make_context,
        max_body_bytes=settings.max_body_bytes,
        page=graphiql_page if settings.graphiql else None,
    )


async def _answer_service_error(request: Request, error: Exception) -> Response:
    return problem(cast("ServiceError", error), request_id(request.scope))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Translate what Starlette's router raises: a path or a method that no route has."""
    raised = cast("HTTPException", error)
    if raised.status_code == MethodNotAllowed.status:
        allow = (raised.headers or {}).get("Allow", "")
        message = f"{request.method} is not among the methods here: {allow}."
        return problem(MethodNotAllowed(message, allow=allow), request_id(request.scope))
    return problem(RouteNotFound("There is nothing at this path."), request_id(request.scope))


async def _answer_fault(request: Request, _error: Exception) -> Response:
    # The server logs the traceback: Starlette raises the error again after this answer.
    _log.error("Internal error in request %s", request_id(request.scope))
    return problem(InternalError("Internal error"), request_id(request.scope))


_EXCEPTION_HANDLERS: Any = {
    ServiceError: _answer_service_error,
    HTTPException: _answer_http_exception,
    Exception: _answer_fault,
}
