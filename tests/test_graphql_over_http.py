"""GraphQL over HTTP (first release, September 2026), one test for each rule.

The docstring of each test names the section and, where it is short, the clause of it.

Where the specification says 422, the answer is 400, as the `graphql-http` audits have it.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.support.door import GRAPHQL, JSON, assert_refused, get, open_door, post

pytestmark = pytest.mark.any_engine

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with open_door() as client:
        yield client


# Requests


async def test_post_executes_a_query(http: httpx2.AsyncClient) -> None:
    """POST."""
    response = await post(http, {"query": "{ greeting later }"})
    assert response.status_code == 200
    assert response.json() == {"data": {"greeting": "ada greets you", "later": "later"}}


async def test_get_executes_a_query_with_json_variables(http: httpx2.AsyncClient) -> None:
    """GET."""
    query = "query ($name: String!) { greeting(name: $name) }"
    response = await get(http, query=query, variables='{"name": "Zoë"}')
    assert response.json() == {"data": {"greeting": "ada greets Zoë"}}


async def test_head_answers_the_headers_of_get(http: httpx2.AsyncClient) -> None:
    """RFC 9110 section 9.3.2, HEAD."""
    got = await http.get("/graphql", params={"query": "{ later }"})
    head = await http.head("/graphql", params={"query": "{ later }"})
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_405_with_allow(http: httpx2.AsyncClient, method: str) -> None:
    """RFC 9110 section 15.5.6, 405 Method Not Allowed."""
    response = await http.request(method, "/graphql")
    assert_refused(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mutation_by_get_is_405_with_allow(http: httpx2.AsyncClient, method: str) -> None:
    """GET: GET requests MUST NOT be used for executing mutation operations."""
    parameters = {"query": "query Q { later } mutation M { change }", "operationName": "M"}
    response = await http.request(method, "/graphql", params=parameters)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_subscription_is_refused(http: httpx2.AsyncClient, accept: str) -> None:
    """POST: performs a query or mutation operation."""
    response = await post(http, {"query": "subscription { ticks }"}, accept)
    assert_refused(response, 400, "INVALID_INPUT")


async def test_unknown_properties_are_ignored(http: httpx2.AsyncClient) -> None:
    """POST, JSON Encoding: other property names are reserved."""
    response = await post(http, {"query": "{ later }", "id": 1, "future": {}})
    assert response.json() == {"data": {"later": "later"}}


@pytest.mark.parametrize("name", ["variables", "operationName", "extensions"])
async def test_null_parameters_are_absent(http: httpx2.AsyncClient, name: str) -> None:
    """Request Parameters: null is equivalent to not specifying."""
    assert (await post(http, {"query": "{ later }", name: None})).status_code == 200


@pytest.mark.parametrize("name", ["variables", "operationName", "extensions"])
async def test_empty_url_parameters_are_absent(http: httpx2.AsyncClient, name: str) -> None:
    """GET: an empty operationName is equivalent to omitting it."""
    assert (await get(http, query="{ later }", **{name: ""})).status_code == 200


async def test_extensions_reach_resolvers(http: httpx2.AsyncClient) -> None:
    """Request Parameters: extensions."""
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
    """Status Codes: Invalid parameters."""
    assert_refused(await post(http, parameters, accept), 400, "INVALID_INPUT")


async def test_url_variables_that_are_not_json_are_400(http: httpx2.AsyncClient) -> None:
    """GET: variables MUST be encoded as a JSON string."""
    message = assert_refused(
        await get(http, query="{ later }", variables="{a"), 400, "INVALID_INPUT"
    )
    assert message == (
        "variables is not valid JSON: Expecting property name enclosed in double quotes"
        " at line 1, column 2."
    )


async def test_a_repeated_url_parameter_is_400(http: httpx2.AsyncClient) -> None:
    """Status Codes: Invalid parameters."""
    response = await http.get("/graphql?query={later}&query={greeting}")
    assert_refused(response, 400, "INVALID_INPUT")


async def test_a_url_that_is_not_utf8_is_400(http: httpx2.AsyncClient) -> None:
    """Status Codes: Invalid parameters."""
    assert_refused(await http.get("/graphql?query=%ff"), 400, "INVALID_INPUT")


# Media types of the response


@pytest.mark.parametrize("accept", [GRAPHQL, JSON])
async def test_the_response_has_the_accepted_type_in_utf8(
    http: httpx2.AsyncClient, accept: str
) -> None:
    """Response, Body: Content-Type MUST be indicated, the encoding SHOULD be."""
    response = await post(http, {"query": '{ greeting(name: "Zoë") }'}, accept)
    assert response.headers["content-type"] == f"{accept}; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    assert "Zoë".encode() in response.content


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{GRAPHQL}, {JSON};q=0.9", GRAPHQL),
        (f"{JSON};q=0.9, {GRAPHQL}", GRAPHQL),
        (f"{JSON}, {GRAPHQL}", JSON),
        (f"multipart/mixed;deferSpec=20220824, {GRAPHQL}, {JSON};q=0.9", GRAPHQL),
        (f"{JSON}, {GRAPHQL}, text/event-stream, multipart/mixed", JSON),
    ],
)
async def test_the_order_and_weights_of_accept_are_honoured(
    http: httpx2.AsyncClient, accept: str, chosen: str
) -> None:
    """Response, Body: the server MUST respect the Accept header."""
    response = await post(http, {"query": "{ later }"}, accept)
    assert response.headers["content-type"] == f"{chosen}; charset=utf-8"


async def test_several_accept_headers_are_one_list(http: httpx2.AsyncClient) -> None:
    """RFC 9110 section 5.3, Field Order."""
    headers = [("Accept", "text/csv"), ("Accept", GRAPHQL), ("Content-Type", JSON)]
    response = await http.post("/graphql", content='{"query": "{ later }"}', headers=headers)
    assert response.headers["content-type"] == f"{GRAPHQL}; charset=utf-8"


@pytest.mark.parametrize("accept", ["text/csv", "text/html", f"{JSON};q=0, {GRAPHQL};q=0.0"])
async def test_nothing_acceptable_is_406(http: httpx2.AsyncClient, accept: str) -> None:
    """Response, Body: 406 where no supported media type is accepted."""
    assert_refused(await post(http, {"query": "{ later }"}, accept), 406, "NOT_ACCEPTABLE")


async def test_a_browser_without_a_query_gets_the_page_without_a_token(
    http: httpx2.AsyncClient,
) -> None:
    """URL: a server MAY use the URL for other purposes."""
    del http.headers["authorization"]
    response = await get(http, BROWSER)
    assert response.status_code == 200
    assert response.text == "<title>Explorer</title>"


@pytest.mark.parametrize(
    ("accept", "parameters"),
    [(BROWSER, {"query": "{ later }"}), (f"{JSON}, text/html", {}), ("*/*", {})],
)
async def test_nobody_else_gets_the_page(
    http: httpx2.AsyncClient, accept: str, parameters: dict[str, str]
) -> None:
    """URL: a server MAY use the URL for other purposes."""
    response = await get(http, accept, **parameters)
    assert response.headers["content-type"] == f"{JSON}; charset=utf-8"


# Status codes


REQUEST_ERRORS = {
    "syntax": ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
    "too many tokens": ({"query": "{" + "a " * 2000 + "}"}, "GRAPHQL_PARSE_FAILED"),
    "nested too deeply": ({"query": "{a" * 500 + "}" * 500}, "GRAPHQL_PARSE_FAILED"),
    "half surrogate pair": ({"query": "{ \ud800 }"}, "GRAPHQL_PARSE_FAILED"),
    "unknown field": ({"query": "{ unknown }"}, "GRAPHQL_VALIDATION_FAILED"),
    "no operation": ({"query": "fragment F on Query { later }"}, "GRAPHQL_VALIDATION_FAILED"),
    "schema definition": ({"query": "type A { b: Int }"}, "GRAPHQL_VALIDATION_FAILED"),
    "defer": ({"query": "{ ... @defer { later } }"}, "GRAPHQL_VALIDATION_FAILED"),
    "two operations, none named": (
        {"query": "mutation A { change } query B { later }"},
        "OPERATION_RESOLUTION_FAILURE",
    ),
    "unknown operation": (
        {"query": "query A { later }", "operationName": "\ud800"},
        "OPERATION_RESOLUTION_FAILURE",
    ),
    "missing variable": ({"query": "query ($v: Int!) { required(value: $v) }"}, "INVALID_INPUT"),
    "scalar": (
        {"query": "query ($v: Even!) { half(of: $v) }", "variables": {"v": 3}},
        "INVALID_INPUT",
    ),
    "literal": ({"query": "{ half(of: 3) }"}, "INVALID_INPUT"),
}


@pytest.mark.parametrize(("accept", "status"), [(GRAPHQL, 400), (JSON, 200)])
@pytest.mark.parametrize(("body", "code"), REQUEST_ERRORS.values(), ids=REQUEST_ERRORS)
async def test_a_request_error_has_a_code_and_no_data(
    *,
    http: httpx2.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    body: dict[str, Any],
    code: str,
    accept: str,
    status: int,
) -> None:
    """Status Codes, both media types: parsing, validation, operation, variables."""
    response = await post(http, body, accept)
    document = response.json()
    assert response.status_code == status
    assert document.keys() == {"errors"}
    assert {error["extensions"]["code"] for error in document["errors"]} == {code}
    assert caplog.records == []


async def test_a_variable_that_does_not_fit_is_named_but_not_quoted(
    http: httpx2.AsyncClient,
) -> None:
    """Status Codes: Variable coercion failure."""
    query = "query ($v: Even!) { half(of: $v) }"
    response = await post(http, {"query": query, "variables": {"v": "private text"}})
    [error] = response.json()["errors"]
    assert error["message"] == "Variable '$v' has invalid value: An Even must be an even number."


async def test_the_errors_of_validation_are_bounded(http: httpx2.AsyncClient) -> None:
    """Status Codes: Document validation failure."""
    query = "{ items {" + " ".join(f"unknown{n}" for n in range(400)) + "} }"
    response = await post(http, {"query": query})
    assert len(response.json()["errors"]) == 21  # the last one says that there are more


@pytest.mark.parametrize(("accept", "status"), [(GRAPHQL, 294), (JSON, 200)])
@pytest.mark.parametrize(
    ("query", "data"),
    [("{ later missing }", {"later": "later", "missing": None}), ("{ missingRoot }", None)],
)
async def test_an_executed_operation_with_errors_is_a_partial_success(
    *,
    http: httpx2.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    query: str,
    data: dict[str, Any] | None,
    accept: str,
    status: int,
) -> None:
    """Status Codes: Field errors encountered during execution."""
    response = await post(http, {"query": query}, accept)
    document = response.json()
    [error] = document["errors"]
    assert response.status_code == status
    assert document["data"] == data
    assert error["message"] == "There is no such thing."
    assert error["extensions"] == {"code": "NOT_FOUND"}
    assert error["path"] in (["missing"], ["missingRoot"])
    assert caplog.records == []


async def test_a_null_that_defeats_a_default_is_the_clients_error(
    http: httpx2.AsyncClient,
) -> None:
    """Status Codes: Field errors encountered during execution."""
    query = "query ($v: Int = 1) { required(value: $v) }"
    response = await post(http, {"query": query, "variables": {"v": None}})
    [error] = response.json()["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT"}


@pytest.mark.parametrize("query", ["{ broken }", "{ items { broken } }", "{ huge }"])
async def test_a_fault_is_masked_and_logged_once(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """Status Codes: Field errors encountered during execution."""
    response = await post(http, {"query": query})
    request_id = response.headers["x-request-id"]
    for error in response.json()["errors"]:
        assert error["message"] == "Internal error"
        assert error["extensions"] == {"code": "INTERNAL", "requestId": request_id}
    assert "secret" not in response.text
    assert "1000000000000" not in response.text
    [record] = caplog.records
    assert (record.name, record.levelno) == ("app", logging.ERROR)
    assert request_id in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_fault_before_execution_is_500(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, accept: str
) -> None:
    """Status Codes: errors that prevent a well-formed GraphQL response."""
    by_authentication = await http.post(
        "/graphql", headers={"Authorization": "Bearer fault", "Accept": accept}
    )
    query = "query ($v: Even!) { half(of: $v) }"
    by_scalar = await post(http, {"query": query, "variables": {"v": "fault"}}, accept)
    for response in (by_authentication, by_scalar):
        [error] = response.json()["errors"]
        assert response.status_code == 500
        assert error["message"] == "Internal error"
        assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_no_token_is_401_before_the_body_is_read(
    http: httpx2.AsyncClient, accept: str
) -> None:
    """Status Codes: 401 where the client is not permitted."""
    del http.headers["authorization"]
    response = await post(http, b"not JSON", accept)
    assert_refused(response, 401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_busy_is_503_with_retry_after(http: httpx2.AsyncClient) -> None:
    """Status Codes: errors that prevent a well-formed GraphQL response."""
    response = await http.post("/graphql", headers={"Authorization": "Bearer busy"})
    assert_refused(response, 503, "BUSY")
    assert response.headers["retry-after"] == "1"
