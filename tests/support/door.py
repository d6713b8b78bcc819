"""The GraphQL server alone, on a test schema whose fields do what a test needs."""

import json
from collections.abc import AsyncIterator
from typing import Any, NewType

import httpx2
import strawberry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from strawberry.schema.config import StrawberryConfig

from app.errors import Busy, InvalidInput, NotFound, Unauthenticated
from app.expiry import Expiry
from app.graphql_server.complexity import QueryLimits
from app.graphql_server.documents import Documents
from app.graphql_server.endpoint import GraphQLEndpoint
from app.graphql_server.execution import Executor
from app.graphql_server.operations import Operations
from app.graphql_server.streams import StreamLimits
from app.measures import Requests
from app.middleware import Faults, FrontDoor
from app.observation import observer
from app.store.reader import charge_nobody
from tests.support.contexts import PlainContexts

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"

MAX_BODY = 16 * 1024
MAX_URI = 1024
MAX_HEADERS = 2048


def parse_even(value: object) -> int:
    if value == "fault":
        raise ValueError("secret")
    if not isinstance(value, int) or value % 2:
        raise InvalidInput("An Even must be an even number.")
    return value


Even = NewType("Even", int)


@strawberry.type
class Item:
    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("secret")


@strawberry.type
class Query:
    @strawberry.field
    def greeting(self, info: strawberry.Info[str, None], name: str = "you") -> str:
        return f"{info.context} greets {name}"

    @strawberry.field
    async def later(self) -> str:
        return "later"

    @strawberry.field
    def half(self, of: Even) -> int:
        return of // 2

    @strawberry.field
    def required(self, value: int) -> int | None:
        return value

    @strawberry.field
    def missing(self) -> str | None:
        raise NotFound("There is no such thing.")

    @strawberry.field
    def missing_root(self) -> str:
        raise NotFound("There is no such thing.")

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("secret")

    @strawberry.field
    def nobody(self) -> str | None:
        return None

    @strawberry.field
    def items(self) -> list[Item]:
        return [Item(), Item(), Item()]

    @strawberry.field
    def huge(self) -> int | None:
        return 10**12

    @strawberry.field
    def extension(self, info: strawberry.Info[str, None]) -> str:
        return str(info.input_extensions["key"])


@strawberry.type
class Mutation:
    @strawberry.mutation
    def change(self) -> int:
        return 1


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> AsyncIterator[int]:
        yield 1


SCHEMA = strawberry.Schema(
    Query,
    Mutation,
    Subscription,
    config=StrawberryConfig(
        scalar_map={Even: strawberry.scalar(name="Even", parse_value=parse_even, serialize=int)}
    ),
)


async def authenticate(authorization: str | None) -> str:
    match authorization:
        case "Bearer busy":
            raise Busy("The service is busy.")
        case "Bearer fault":
            raise RuntimeError("secret")
        case None:
            raise Unauthenticated("A bearer token is required.")
        case _:
            return authorization.removeprefix("Bearer ")


def page() -> Response:
    return HTMLResponse("<title>Explorer</title>")


ENDPOINT = GraphQLEndpoint(
    operations=Operations(
        executor=Executor(SCHEMA, cache_size=10, limits=QueryLimits()),
        documents=Documents(cache_size=10, trusted={}, is_trusted_only=False),
        admit=lambda _scope, authorization: authenticate(authorization),
        authenticate=authenticate,
        contexts=PlainContexts(str),
        deadline=Expiry(10),
    ),
    streams=StreamLimits(),
    max_body_bytes=MAX_BODY,
    page=page,
)

APP = Starlette(
    routes=[Route("/graphql", ENDPOINT)],
    middleware=[
        Middleware(
            FrontDoor,
            max_uri_bytes=MAX_URI,
            max_header_bytes=MAX_HEADERS,
            max_receive_seconds=30,
            observe=observer(Requests(), charge_nobody),
        ),
        Middleware(Faults),
    ],
)


def open_door() -> httpx2.AsyncClient:
    """Return a client of the door that has a token."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(APP),
        base_url="http://service.test",
        headers={"Authorization": "Bearer ada"},
    )


async def post(http: httpx2.AsyncClient, body: Any, accept: str = GRAPHQL) -> httpx2.Response:
    headers = {"Accept": accept, "Content-Type": JSON}
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return await http.post("/graphql", content=content, headers=headers)


async def get(
    http: httpx2.AsyncClient, accept: str = GRAPHQL, **parameters: str
) -> httpx2.Response:
    return await http.get("/graphql", params=parameters, headers={"Accept": accept})


def assert_refused(response: httpx2.Response, status: int, code: str) -> str:
    """Assert a GraphQL document of one error with nothing but a message and a code."""
    document = response.json()
    [error] = document["errors"]
    assert response.status_code == status
    assert response.headers["content-type"].partition(";")[0] in (JSON, GRAPHQL)
    assert document == {"errors": [error]}
    assert error["extensions"] == {"code": code}
    return str(error["message"])
