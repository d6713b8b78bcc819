"""WebSocket and server-sent events alone, on a schema whose subscription a test feeds."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass, field

import strawberry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from app.errors import Unauthenticated
from app.expiry import Expiry
from app.graphql_server.complexity import QueryLimits
from app.graphql_server.documents import Documents
from app.graphql_server.endpoint import GraphQLEndpoint
from app.graphql_server.execution import Executor
from app.graphql_server.operations import Operations
from app.graphql_server.streams import StreamLimits
from app.graphql_server.websocket import WebSocketEndpoint
from app.measures import Requests
from app.middleware import FrontDoor
from app.observation import observer
from app.store.reader import charge_nobody
from tests.support.contexts import PlainContexts

TICKS = "subscription { ticks { number } }"


@dataclass
class Source:
    """Where the events come from: numbers, or errors to raise.

    `authenticating` has what each look at the token raises, None where it raises nothing, and
    after its end nothing is raised. `failure` is raised by what begins or fails on demand.
    """

    authenticating: list[Exception | None] = field(default_factory=list)
    failure: Exception | None = None
    executed: int = 0
    queues: list["asyncio.Queue[int | Exception]"] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def send(self, event: int | Exception) -> None:
        for queue in self.queues:
            queue.put_nowait(event)

    async def until(self, is_so: Callable[["Source"], bool]) -> None:
        """Wait until something holds that a subscription or a look at the token has changed."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: is_so(self))

    async def until_open(self, count: int) -> None:
        """Wait until so many subscriptions are open."""
        await self.until(lambda source: len(source.queues) == count)

    async def follow(self) -> AsyncGenerator["Tick"]:
        queue: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.queues.append(queue)
        try:
            await self._notify()
            while True:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                yield Tick(value=event, source=self)
        finally:
            self.queues.remove(queue)
            await self._notify()

    async def authenticate(self, authorization: str | None) -> str:
        if authorization is None:
            raise Unauthenticated("A bearer token is required.")
        error = self.authenticating.pop(0) if self.authenticating else None
        await self._notify()
        if error:
            raise error
        return authorization

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@strawberry.type
class Tick:
    value: strawberry.Private[int]
    source: strawberry.Private[Source]

    @property
    def key(self) -> Hashable:
        return self.value

    @property
    def event_id(self) -> str:
        return str(self.value)

    @strawberry.field
    def number(self) -> int:
        self.source.executed += 1
        return self.value

    @strawberry.field
    def text(self, length: int) -> str:
        return "x" * length

    @strawberry.field
    def failing(self) -> str | None:
        raise self.source.failure or RuntimeError("secret")


@strawberry.type
class Query:
    @strawberry.field
    def failing(self, info: strawberry.Info[Source, None]) -> str | None:
        raise info.context.failure or RuntimeError("secret")


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, info: strawberry.Info[Source, None]) -> AsyncGenerator[Tick]:
        if info.context.failure:
            raise info.context.failure
        return info.context.follow()


SCHEMA = strawberry.Schema(Query, subscription=Subscription)


def stream_door(source: Source, limits: StreamLimits | None = None) -> Starlette:
    limits = limits or StreamLimits()
    operations = Operations(
        executor=Executor(SCHEMA, cache_size=10, limits=QueryLimits()),
        documents=Documents(cache_size=10, trusted={}, is_trusted_only=False),
        admit=lambda _scope, authorization: source.authenticate(authorization),
        authenticate=source.authenticate,
        contexts=PlainContexts(lambda _viewer: source),
        deadline=Expiry(10),
    )
    endpoint = GraphQLEndpoint(
        operations=operations, streams=limits, max_body_bytes=16 * 1024, page=None
    )
    return Starlette(
        routes=[
            Route("/graphql", endpoint),
            WebSocketRoute("/graphql", WebSocketEndpoint(operations, limits)),
        ],
        middleware=[
            Middleware(
                FrontDoor,
                max_uri_bytes=1024,
                max_header_bytes=4096,
                max_receive_seconds=30,
                observe=observer(Requests(), charge_nobody),
            )
        ],
    )
