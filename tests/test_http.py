"""What both doors need of HTTP: bodies, negotiation and bounds, seen through the GraphQL door."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Scope

from app.http import preferred_type
from tests.support.door import (
    APP,
    GRAPHQL,
    JSON,
    MAX_BODY,
    MAX_HEADERS,
    MAX_URI,
    assert_refused,
    get,
    open_door,
    post,
)

pytestmark = pytest.mark.any_engine


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with open_door() as client:
        yield client


# The body


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json ;",
        "application/json; charset=UTF8",
        "application/json; version=1",
        'application/json; profile="a;charset=utf-16, \\"b\\""; charset=utf-8',
    ],
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
        ["application/json; version=1; charset=latin1"],
        ["application/json; charset=utf-8; charset=utf-16"],
        ["application/json; charset"],
        ['application/json; version="1'],
        ["application/json; version=1, text/plain"],
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
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"query": "{ later }"}',
    "latin-1": b'{"query": "\xe9"}',
    "utf-16": '{"query": "{ later }"}'.encode("utf-16"),
    "NaN": b'{"query": "{ later }", "variables": {"a": NaN}}',
    "-Infinity": b'{"query": "{ later }", "variables": {"a": -Infinity}}',
    "control character": b'{"query": "{\n later }"}',
    "deep": b"[" * 10_000,
    "5,000 digits": b'{"query": "{ later }", "variables": {"a": ' + b"1" * 5000 + b"}}",
}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_json_is_400(
    http: httpx2.AsyncClient, body: bytes, accept: str
) -> None:
    assert_refused(await post(http, body, accept), 400, "INVALID_INPUT")


async def run_app(scope: Scope, messages: list[Message]) -> list[Message]:
    """Run the app below any client, with what a server would hand it; return what it sends."""
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await APP(scope, receive, send)
    return sent


async def test_a_client_that_leaves_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer ada")]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b""}
    sent = await run_app(
        {**scope, "headers": headers},
        [
            {"type": "http.request", "body": b'{"query":', "more_body": True},
            {"type": "http.disconnect"},
        ],
    )
    assert sent == []
    assert caplog.records == []


# Negotiation


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "a/json"),
        ("", "a/json"),
        ("*/*", "a/json"),
        ("b/*", "b/html"),
        ("A/CSV", "a/csv"),
        ("a/csv;q=0.5, a/json;q=0.4", "a/csv"),
        ("a/csv, a/json", "a/csv"),
        ("a/json, a/csv", "a/json"),
        ("*/*, a/csv", "a/csv"),
        ("a/json;q=0, */*", "a/csv"),
        ("a/*;q=0, */*", "b/html"),
        ("a/*;q=0.5, a/csv;q=0.1", "a/json"),
        ("a/csv; charset=UTF-8", "a/csv"),
        ("a/csv; charset=utf-16, b/html;q=0.1", "b/html"),
        ("a/csv; header=present, b/html", "b/html"),
        ("a/csv; q=2, b/html", "b/html"),
        ("a/csv; q=nan, b/html", "b/html"),
        ("c/d", None),
        ("*/*;q=0", None),
        ("a/json;q=0.000", None),
        (",;q=,/,", None),
    ],
)
def test_preferred_type(accept: str | None, chosen: str | None) -> None:
    assert preferred_type(accept, ("a/json", "a/csv", "b/html")) == chosen


@given(st.text(alphabet='*/ajson,;q=.01 "'))
def test_every_accept_header_can_be_read(accept: str) -> None:
    assert preferred_type(accept, ("a/json", "j/s")) in ("a/json", "j/s", None)


# Bounds


async def test_a_long_uri_is_414(http: httpx2.AsyncClient) -> None:
    response = await get(http, query="{ later }", padding="x" * MAX_URI)
    assert_problem(response, 414, "URI Too Long", "URI_TOO_LONG")


@pytest.mark.parametrize(
    "headers", [{"X-Long": "x" * MAX_HEADERS}, {f"X-{n}": "" for n in range(MAX_HEADERS // 5)}]
)
async def test_large_headers_are_431(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    response = await http.get("/graphql", headers=headers)
    assert_problem(
        response, 431, "Request Header Fields Too Large", "REQUEST_HEADER_FIELDS_TOO_LARGE"
    )


def assert_problem(response: httpx2.Response, status: int, title: str, code: str) -> None:
    document = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert document == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": document["detail"],
        "code": code,
        "requestId": response.headers["x-request-id"],
    }


def test_a_websocket_with_large_headers_is_denied_with_431() -> None:
    headers = {"X-Long": "x" * MAX_HEADERS}
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        TestClient(APP).websocket_connect("/graphql", headers=headers),
    ):
        pass
    assert caught.value.status_code == 431
    assert caught.value.json()["code"] == "REQUEST_HEADER_FIELDS_TOO_LARGE"


async def test_a_websocket_is_closed_where_the_server_cannot_deny_it() -> None:
    headers = [(b"x-long", b"x" * MAX_HEADERS)]
    scope = {"type": "websocket", "path": "/graphql", "query_string": b"", "headers": headers}
    [message] = await run_app(scope, [{"type": "websocket.connect"}])
    assert (message["type"], message["code"]) == ("websocket.close", 1008)


async def test_every_response_has_an_id_of_its_own(http: httpx2.AsyncClient) -> None:
    identifiers = {(await get(http)).headers["x-request-id"] for _ in range(2)}
    assert len(identifiers) == 2
