"""GraphQL over HTTP (first release, September 2026), one test for each rule, on a schema of its own.

Where the specification says 422, the answer is 400, as the `graphql-http` audits have it.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, NewType

import httpx2
import pytest
import strawberry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from strawberry.schema.config import StrawberryConfig

from app.errors import Busy, InvalidInput, NotFound, Unauthenticated
from app.graphql.execution import Executor
from app.graphql.http import GraphQLEndpoint
from app.http import RequestBounds

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"
MAX_BODY = 4096
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


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


def make_context(_request: Request, viewer: str) -> str:
    return viewer


def page() -> Response:
    return HTMLResponse("<title>Explorer</title>")


ENDPOINT = GraphQLEndpoint(
    executor=Executor(SCHEMA, cache_size=10),
    authenticate=authenticate,
    make_context=make_context,
    max_body_bytes=MAX_BODY,
    page=page,
)

APP = Starlette(
    routes=[Route("/graphql", ENDPOINT)],
    middleware=[Middleware(RequestBounds, max_uri_bytes=8192, max_header_bytes=32768)],
)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(APP),
        base_url="http://service.test",
        headers={"Authorization": "Bearer ada"},
    ) as client:
        yield client


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


# Requests


async def test_post_executes_a_query(http: httpx2.AsyncClient) -> None:
    response = await post(http, {"query": "{ greeting later }"})
    assert response.status_code == 200
    assert response.json() == {"data": {"greeting": "ada greets you", "later": "later"}}


async def test_get_executes_a_query_with_json_variables(http: httpx2.AsyncClient) -> None:
    query = "query ($name: String!) { greeting(name: $name) }"
    response = await get(http, query=query, variables='{"name": "Zoë"}')
    assert response.json() == {"data": {"greeting": "ada greets Zoë"}}


async def test_head_answers_the_headers_of_get(http: httpx2.AsyncClient) -> None:
    got = await http.get("/graphql", params={"query": "{ later }"})
    head = await http.head("/graphql", params={"query": "{ later }"})
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_405_with_allow(http: httpx2.AsyncClient, method: str) -> None:
    response = await http.request(method, "/graphql")
    assert_refused(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mutation_by_get_is_405_with_allow(http: httpx2.AsyncClient, method: str) -> None:
    parameters = {"query": "query Q { later } mutation M { change }", "operationName": "M"}
    response = await http.request(method, "/graphql", params=parameters)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_subscription_is_refused(http: httpx2.AsyncClient, accept: str) -> None:
    response = await post(http, {"query": "subscription { ticks }"}, accept)
    assert_refused(response, 400, "INVALID_INPUT")


async def test_unknown_properties_are_ignored(http: httpx2.AsyncClient) -> None:
    response = await post(http, {"query": "{ later }", "id": 1, "future": {}})
    assert response.json() == {"data": {"later": "later"}}


@pytest.mark.parametrize("name", ["variables", "operationName", "extensions"])
async def test_null_parameters_are_absent(http: httpx2.AsyncClient, name: str) -> None:
    assert (await post(http, {"query": "{ later }", name: None})).status_code == 200


@pytest.mark.parametrize("name", ["variables", "operationName", "extensions"])
async def test_empty_url_parameters_are_absent(http: httpx2.AsyncClient, name: str) -> None:
    assert (await get(http, query="{ later }", **{name: ""})).status_code == 200


async def test_extensions_reach_resolvers(http: httpx2.AsyncClient) -> None:
    response = await post(http, {"query": "{ extension }", "extensions": {"key": "value"}})
    assert response.json() == {"data": {"extension": "value"}}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"query": None},
        {"query": ""},
        {"query": 1},
        {"query": ["{ later }"]},
        {"query": "{ later }", "operationName": 1},
        {"query": "{ later }", "operationName": {}},
        {"query": "{ later }", "variables": "{}"},
        {"query": "{ later }", "variables": []},
        {"query": "{ later }", "extensions": False},
    ],
    ids=str,
)
async def test_parameters_of_a_wrong_type_are_400(
    http: httpx2.AsyncClient, parameters: dict[str, Any], accept: str
) -> None:
    assert_refused(await post(http, parameters, accept), 400, "INVALID_INPUT")


async def test_url_variables_that_are_not_json_are_400(http: httpx2.AsyncClient) -> None:
    message = assert_refused(
        await get(http, query="{ later }", variables="{a"), 400, "INVALID_INPUT"
    )
    assert message == (
        "variables is not valid JSON: Expecting property name enclosed in double quotes"
        " at line 1, column 2."
    )


async def test_a_repeated_url_parameter_is_400(http: httpx2.AsyncClient) -> None:
    response = await http.get("/graphql?query={later}&query={greeting}")
    assert_refused(response, 400, "INVALID_INPUT")


async def test_a_url_that_is_not_utf8_is_400(http: httpx2.AsyncClient) -> None:
    assert_refused(await http.get("/graphql?query=%ff"), 400, "INVALID_INPUT")


# The body


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json ;"],
)
async def test_json_in_utf8_is_accepted(http: httpx2.AsyncClient, content_type: str) -> None:
    response = await http.post(
        "/graphql", content='{"query": "{ later }"}', headers={"Content-Type": content_type}
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "content_types",
    [
        [],
        [""],
        ["text/plain"],
        ["application/x-www-form-urlencoded"],
        ["multipart/form-data; boundary=x"],
        ["application/json, text/plain"],
        ["application/json", "text/plain"],
        ["application/json", "application/json"],
        ["application/json; charset=utf-16"],
        ["application/json; profile=x"],
        ["application/jsonp"],
    ],
    ids=str,
)
async def test_every_other_content_type_is_415(
    http: httpx2.AsyncClient, content_types: list[str]
) -> None:
    response = await http.post(
        "/graphql",
        content=b'{"query": "mutation { change }"}',
        headers=[("Content-Type", value) for value in content_types],
    )
    message = assert_refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert "application/json" in message


async def test_a_declared_body_over_the_limit_is_413(http: httpx2.AsyncClient) -> None:
    response = await post(http, {"query": "#" * MAX_BODY})
    assert str(MAX_BODY) in assert_refused(response, 413, "PAYLOAD_TOO_LARGE")


async def test_a_streamed_body_over_the_limit_is_413(http: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1024 + 1):
            yield b" " * 1024

    response = await http.post("/graphql", content=chunks(), headers={"Content-Type": JSON})
    assert_refused(response, 413, "PAYLOAD_TOO_LARGE")


NOT_JSON = {
    "empty": b"",
    "cut": b'{"query": ',
    "trailing": b'{"query": "{ later }"} x',
    "byte order mark": b'\xef\xbb\xbf{"query": "{ later }"}',
    "latin-1": b'{"query": "\xe9"}',
    "utf-16": '{"query": "{ later }"}'.encode("utf-16"),
    "NaN": b'{"query": "{ later }", "variables": {"a": NaN}}',
    "-Infinity": b'{"query": "{ later }", "variables": {"a": -Infinity}}',
    "control character": b'{"query": "{\n later }"}',
    "deep": b"[" * 2000,
    "5,000 digits": b'{"query": "{ later }", "variables": {"a": ' + b"1" * 4001 * 1 + b"}}",
}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_json_is_400(
    http: httpx2.AsyncClient, body: bytes, accept: str
) -> None:
    assert_refused(await post(http, body, accept), 400, "INVALID_INPUT")
