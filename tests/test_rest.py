"""The REST door by its contract: the nine fields, preconditions, and what is refused and how."""

import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.activity.input_limits import InputLimits
from app.openapi import openapi_document
from app.rest import ACTIVITY_PATH
from tests.support.service import JSON, Client, Service, activity_url

UUID = re.compile(
    r"^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    r"|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
DOCUMENT = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
MISSING = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9f"
JSON_TYPE = {"Content-Type": "application/json"}
NINE_FIELDS = {
    *("id", "ticketId", "activityType", "isPrivate", "createdAt"),
    *("actorId", "message", "metadata", "documentId"),
}
TITLES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
OPENAPI: JSON = openapi_document(ACTIVITY_PATH, InputLimits(65536, 65536, 32))
DOCUMENTED: JSON = OPENAPI["paths"][ACTIVITY_PATH]
TOLD = {"allow", "etag", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate"}


def assert_problem(response: httpx2.Response, status: int, code: str) -> str:
    """Assert all that an error says, and that it is documented; return its detail."""
    document = response.json()
    detail = document.pop("detail")
    path = document.pop("path", ["absent"])
    reasons = document.pop("reasons", None)
    assert document == {
        "type": "about:blank",
        "title": TITLES[status],
        "status": status,
        "code": code,
        "requestId": response.headers["X-Request-ID"],
    }
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert path
    assert (reasons is None) is (status != 403)
    assert isinstance(detail, str)
    assert len(detail) > 10
    assert_documented(response)
    return detail


def assert_documented(response: httpx2.Response) -> None:
    operation = DOCUMENTED.get(response.request.method.lower())
    if operation and "/activity/" in response.request.url.path:
        documented = operation["responses"][str(response.status_code)]
        if reference := documented.get("$ref"):
            documented = OPENAPI["components"]["responses"][reference.rpartition("/")[2]]
        headers = {name.lower() for name in documented["headers"]}
        assert (TOLD | {"x-request-id"}) & response.headers.keys() <= headers
        if response.status_code >= 400 and response.content:
            assert f"`{response.json()['code']}`" in documented["description"]


@pytest.fixture
async def entry(author: Client) -> JSON:
    """An entry at version 2."""
    created = await author.create_activity(await author.create_ticket(), message="first")
    response = await author.put(created["ticketId"], created["id"], {"message": "second"})
    assert response.headers["ETag"] == '"2"'
    document: JSON = response.json()
    return document


async def assert_unchanged(service: Service, author: Client, entry: JSON) -> None:
    response = await author.get(entry["ticketId"], entry["id"])
    assert response.json() == entry
    assert response.headers["ETag"] == '"2"'
    assert [change[0] for change in await service.history(entry["ticketId"])] == [1, 2, 3]


async def put_raw(author: Client, entry: JSON, content: Any, headers: Any = None) -> Any:
    url = activity_url(entry["ticketId"], entry["id"])
    return await author.request("PUT", url, content=content, headers=headers or JSON_TYPE)


# What is answered


async def test_put_answers_exactly_the_nine_fields(author: Client) -> None:
    ticket_id = await author.create_ticket()
    created = await author.create_activity(
        ticket_id, activityType="DOCUMENT_UPLOAD", documentId=DOCUMENT, metadata={"pages": 3}
    )

    response = await author.put(ticket_id, created["id"], {"message": "é 🙂", "isPrivate": True})

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {
        "id": created["id"],
        "ticketId": ticket_id,
        "activityType": "document_upload",
        "isPrivate": True,
        "createdAt": "2026-11-23T15:07:05.514Z",
        "actorId": str(author.actor_id),
        "message": "é 🙂",
        "metadata": {"pages": 3},
        "documentId": DOCUMENT,
    }


async def test_fields_without_a_value_are_null_and_metadata_is_empty(author: Client) -> None:
    created = await author.create_activity(await author.create_ticket())

    document = (await author.put(created["ticketId"], created["id"], {})).json()

    assert set(document) == NINE_FIELDS
    assert (document["message"], document["metadata"], document["documentId"]) == (None, {}, None)
    assert document["isPrivate"] is False
    assert all(UUID.match(document[name]) for name in ("id", "ticketId", "actorId"))


async def test_put_and_get_carry_the_version_as_etag(author: Client, entry: JSON) -> None:
    put = await author.put(entry["ticketId"], entry["id"], {"message": "third"})
    get = await author.get(entry["ticketId"], entry["id"])

    assert put.headers["ETag"] == get.headers["ETag"] == '"3"'
    assert put.json() == get.json() == entry | {"message": "third"}


async def test_created_at_stays_when_the_entry_changes(
    service: Service, author: Client, entry: JSON
) -> None:
    service.clock.advance(days=1)

    response = await author.put(entry["ticketId"], entry["id"], {"message": "third"})

    assert response.json()["createdAt"] == entry["createdAt"]


async def test_head_answers_the_headers_of_get(author: Client, entry: JSON) -> None:
    get = await author.get(entry["ticketId"], entry["id"])

    head = await author.request("HEAD", activity_url(entry["ticketId"], entry["id"]))

    assert (head.status_code, head.content) == (200, b"")
    del get.headers["X-Request-ID"], head.headers["X-Request-ID"]
    assert head.headers == get.headers


async def test_what_was_read_can_be_put_back(service: Service, author: Client, entry: JSON) -> None:
    response = await author.put(entry["ticketId"], entry["id"], entry)

    assert (response.status_code, response.json()) == (200, entry)
    await assert_unchanged(service, author, entry)


async def test_unknown_members_are_ignored_and_never_stored(author: Client, entry: JSON) -> None:
    others = {"id": MISSING, "createdAt": 1, "actorId": None, "activityType": "view", "x": [{}]}

    response = await author.put(entry["ticketId"], entry["id"], others | {"message": "third"})

    assert (response.status_code, response.json()) == (200, entry | {"message": "third"})


@pytest.mark.parametrize("body", [{}, {"message": "second"}, {"metadata": {}, "isPrivate": False}])
async def test_a_put_that_changes_nothing_leaves_no_trace(
    service: Service, author: Client, entry: JSON, body: JSON
) -> None:
    service.clock.advance(hours=1)

    response = await author.put(entry["ticketId"], entry["id"], body)

    assert (response.json(), response.headers["ETag"]) == (entry, '"2"')
    await assert_unchanged(service, author, entry)


# Preconditions (RFC 9110 section 13.1)


@pytest.mark.parametrize(
    "value", ['"2"', '"1", "2"', '"x" ,"2", W/"9"', "*", ' "2" ', '"2",', ',,"zz", ,\t"2"']
)
async def test_if_match_lets_the_current_version_pass(
    author: Client, entry: JSON, value: str
) -> None:
    response = await author.put(
        entry["ticketId"], entry["id"], {"message": "third"}, **{"If-Match": value}
    )

    assert (response.status_code, response.headers["ETag"]) == (200, '"3"')


@pytest.mark.parametrize(
    "value",
    [
        '"1"',
        '"3"',
        'W/"2"',
        '"1", W/"2"',
        '"x"',
        '""',
        '"02"',
        '"' + "9" * 99 + '"',
        "",
        ",",
        ", ,",
    ],
)
async def test_if_match_with_no_version_that_matches_is_412(
    service: Service, author: Client, entry: JSON, value: str
) -> None:
    response = await author.put(
        entry["ticketId"], entry["id"], {"message": "third"}, **{"If-Match": value}
    )

    assert_problem(response, 412, "VERSION_CONFLICT")
    assert response.headers["ETag"] == '"2"'
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize("value", ["2", '"2', '"1" "2"', '*, "2"', "*, *", 'w/"2"', '"2 "', "*,"])
async def test_a_malformed_if_match_is_422(
    service: Service, author: Client, entry: JSON, value: str
) -> None:
    response = await author.put(
        entry["ticketId"], entry["id"], {"message": "third"}, **{"If-Match": value}
    )

    assert "if-match" in assert_problem(response, 422, "INVALID_INPUT").lower()
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize("value", ["*", '"2"', 'W/"2"', '"1", ,"2"', '"x",W/"2"'])
async def test_if_none_match_lets_no_put_overwrite_what_it_names(
    service: Service, author: Client, entry: JSON, value: str
) -> None:
    response = await author.put(
        entry["ticketId"], entry["id"], {"message": "third"}, **{"If-None-Match": value}
    )

    assert_problem(response, 412, "VERSION_CONFLICT")
    assert response.headers["ETag"] == '"2"'
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize("value", ['"1"', 'W/"1", "3"', "", ",", '"x"'])
async def test_if_none_match_lets_a_put_overwrite_every_other_version(
    author: Client, entry: JSON, value: str
) -> None:
    response = await author.put(
        entry["ticketId"], entry["id"], {"message": "third"}, **{"If-None-Match": value}
    )

    assert (response.status_code, response.headers["ETag"]) == (200, '"3"')


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "status"),
    [('"2"', '"2"', 412), ('"1"', '"1"', 412), ("*", "*", 412), ('"2"', '"1"', 200)],
)
async def test_both_preconditions_of_a_put_must_hold(
    author: Client, entry: JSON, if_match: str, if_none_match: str, status: int
) -> None:
    headers = {"If-Match": if_match, "If-None-Match": if_none_match}

    response = await author.put(entry["ticketId"], entry["id"], {"message": "third"}, **headers)

    assert response.status_code == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"1"'}, 412),
        ({"If-Match": ""}, 412),
        ({"If-Match": 'W/"2"'}, 412),
        ({"If-Match": '"1"', "If-None-Match": '"2"'}, 412),  # If-Match comes first
        ({"If-Match": '"2"', "If-None-Match": '"2"'}, 304),
        ({"If-Match": "*", "If-None-Match": '"1"'}, 200),
        ({"If-Match": '"2"'}, 200),
    ],
)
async def test_if_match_of_a_read_comes_before_if_none_match(
    author: Client, entry: JSON, method: str, headers: dict[str, str], status: int
) -> None:
    url = activity_url(entry["ticketId"], entry["id"])

    response = await author.request(method, url, headers=headers)

    assert (response.status_code, response.headers["ETag"]) == (status, '"2"')
    assert_documented(response)


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_preconditions_tell_nothing_of_an_entry_that_is_not_there(
    author: Client, entry: JSON, method: str, name: str
) -> None:
    url = activity_url(entry["ticketId"], MISSING)

    response = await author.request(method, url, json={}, headers={name: "*"})

    assert_problem(response, 404, "NOT_FOUND")
    assert "ETag" not in response.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("value", ['"2"', 'W/"2"', '"1", "2"', '"x",W/"2"', "*"])
async def test_if_none_match_answers_304_to_who_has_it(
    author: Client, entry: JSON, value: str, method: str
) -> None:
    url = activity_url(entry["ticketId"], entry["id"])

    response = await author.request(method, url, headers={"If-None-Match": value})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == '"2"'
    assert "Content-Type" not in response.headers
    assert_documented(response)


async def test_if_none_match_answers_200_to_who_has_another_version(
    author: Client, entry: JSON
) -> None:
    response = await author.get(entry["ticketId"], entry["id"], **{"If-None-Match": '"1", "3"'})

    assert (response.status_code, response.json()) == (200, entry)


async def test_a_malformed_if_none_match_is_422(author: Client, entry: JSON) -> None:
    response = await author.get(entry["ticketId"], entry["id"], **{"If-None-Match": "2"})

    assert "if-none-match" in assert_problem(response, 422, "INVALID_INPUT").lower()


# What is refused


async def chunks_over_the_limit() -> AsyncIterator[bytes]:
    for _ in range(1025):
        yield b" " * 1024


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_over_the_limit_is_413(
    service: Service, author: Client, entry: JSON, is_declared: bool
) -> None:
    content = b" " * (1024 * 1024 + 1) if is_declared else chunks_over_the_limit()

    response = await put_raw(author, entry, content)

    assert ("content-length" in response.request.headers) is is_declared
    assert "1048576" in assert_problem(response, 413, "PAYLOAD_TOO_LARGE")
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize(
    "content_types",
    [[], ["text/plain"], ["application/json, text/plain"], ["application/json"] * 2, ["*/*"]],
    ids=str,
)
async def test_every_other_content_type_is_415(
    service: Service, author: Client, entry: JSON, content_types: list[str]
) -> None:
    response = await author.http.put(
        activity_url(entry["ticketId"], entry["id"]),
        content=b'{"message": "third"}',
        headers=[
            ("Authorization", f"Bearer {author.token}"),
            *(("Content-Type", value) for value in content_types),
        ],
    )

    assert "application/json" in assert_problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    await assert_unchanged(service, author, entry)


REFUSED_BODIES = {
    "empty": b"",
    "not JSON": b'{"message": third}',
    "cut": b'{"message": "third"',
    "two values": b'{"message": "third"} {}',
    "not UTF-8": b'{"message": "\xe9"}',
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"message": "third"}',
    "UTF-16": '{"message": "third"}'.encode("utf-16"),
    "null": b"null",
    "list": b'[{"message": "third"}]',
    "text": b'"third"',
    "number": b"1",
    "NaN": b'{"message": "third", "metadata": {"a": NaN}}',
    "NaN in an unknown member": b'{"message": "third", "x": NaN}',
    "deep": b"[" * 100_000,
    "deep and closed": b'{"message": "third", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "5,000 digits": b'{"message": "third", "metadata": {"a": ' + b"1" * 5000 + b"}}",
}


@pytest.mark.parametrize("content", REFUSED_BODIES.values(), ids=REFUSED_BODIES)
async def test_a_body_that_is_not_an_object_in_json_is_422(
    service: Service, author: Client, entry: JSON, content: bytes
) -> None:
    response = await put_raw(author, entry, content)

    assert "body" in assert_problem(response, 422, "INVALID_INPUT")
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_without_a_token_nothing_is_answered(
    service: Service, author: Client, entry: JSON, method: str
) -> None:
    url = activity_url(entry["ticketId"], entry["id"])

    response = await service.http.request(method, url, json={"message": "third"})

    assert_problem(response, 401, "UNAUTHENTICATED")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    await assert_unchanged(service, author, entry)


async def test_who_is_not_the_author_is_403(service: Service, author: Client, entry: JSON) -> None:
    stranger = await service.client()

    response = await stranger.put(entry["ticketId"], entry["id"], {"message": "third"})

    assert_problem(response, 403, "FORBIDDEN")
    await assert_unchanged(service, author, entry)


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_an_entry_that_is_not_there_is_404(author: Client, entry: JSON, method: str) -> None:
    response = await author.request(method, activity_url(entry["ticketId"], MISSING), json={})

    assert_problem(response, 404, "NOT_FOUND")


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "OPTIONS"])
async def test_every_other_method_is_405(
    service: Service, author: Client, entry: JSON, method: str
) -> None:
    response = await author.request(method, activity_url(entry["ticketId"], entry["id"]), json={})

    assert_problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, HEAD, PUT"
    await assert_unchanged(service, author, entry)


async def test_a_byte_order_mark_before_the_body_is_ignored(author: Client, entry: JSON) -> None:
    response = await put_raw(author, entry, b'\xef\xbb\xbf{"message": "third"}')

    assert (response.status_code, response.json()["message"]) == (200, "third")


@pytest.mark.parametrize(
    ("coding", "named"),
    [("gzip", "gzip"), ("identity, BR", "BR"), ("deflate,gzip", "deflate, gzip")],
)
async def test_a_body_in_a_content_coding_is_415_that_names_it(
    service: Service, author: Client, entry: JSON, coding: str, named: str
) -> None:
    body = gzip.compress(b'{"message": "third"}')

    response = await put_raw(author, entry, body, JSON_TYPE | {"Content-Encoding": coding})

    assert named in assert_problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["Accept-Encoding"] == "identity"
    await assert_unchanged(service, author, entry)


async def test_the_content_coding_identity_is_accepted(author: Client, entry: JSON) -> None:
    headers = JSON_TYPE | {"Content-Encoding": "Identity"}

    response = await put_raw(author, entry, b'{"message": "third"}', headers)

    assert response.status_code == 200


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_a_path_with_one_more_slash_is_404_and_leads_nowhere(
    author: Client, entry: JSON, method: str
) -> None:
    for path in (activity_url(entry["ticketId"], entry["id"]) + "/", "/graphql/"):
        response = await author.request(method, path, json={}, headers={"Host": "evil.example"})

        assert_problem(response, 404, "NOT_FOUND")
        assert "Location" not in response.headers


async def test_no_response_lets_a_browser_guess_its_type(author: Client, entry: JSON) -> None:
    preflight = {"Origin": "https://x", "Access-Control-Request-Method": "GET"}

    answers = [
        await author.get(entry["ticketId"], entry["id"]),
        await author.get(entry["ticketId"], MISSING),
        await author.request("GET", "/graphql", headers={"Accept": "text/html"}),
        await author.request("GET", "/nothing"),
        await author.request("GET", "/?" + "x" * 8192),
        await author.request("OPTIONS", "/graphql", headers=preflight),
    ]

    assert [answer.headers["X-Content-Type-Options"] for answer in answers] == ["nosniff"] * 6


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/crm/tickets", "/v1/crm/tickets/x/activity/y/z"])
async def test_an_unknown_path_is_404(author: Client, path: str) -> None:
    assert_problem(await author.request("PUT", path, json={}), 404, "NOT_FOUND")


async def test_a_long_uri_is_414(service: Service, author: Client, entry: JSON) -> None:
    url = activity_url(entry["ticketId"], entry["id"]) + "?" + "x" * 8192

    response = await author.request("PUT", url, json={"message": "third"})

    assert "8192" in assert_problem(response, 414, "URI_TOO_LONG")
    await assert_unchanged(service, author, entry)


async def test_large_headers_are_431(service: Service, author: Client, entry: JSON) -> None:
    response = await author.put(entry["ticketId"], entry["id"], {"message": "third"}, X="x" * 32768)

    assert "32768" in assert_problem(response, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE")
    await assert_unchanged(service, author, entry)
