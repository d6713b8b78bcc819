"""What pages of other origins may do: those that are named, and the rest."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.settings import Settings
from app.store.queries import has_tickets
from tests.support.service import Service, start

pytestmark = pytest.mark.any_engine

NAMED = "https://desk.example"
OTHER = "https://evil.example"
MUTATION = '{"query": "mutation { createTicket(input: {}) { ticket { id } } }"}'


@pytest.fixture
async def open_to_one(settings: Settings) -> AsyncIterator[Service]:
    origins = f"{NAMED},http://localhost:5173"
    async with start(settings.model_copy(update={"cors_origins": origins})) as service:
        yield service


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/graphql", "POST", "authorization,content-type"),
        ("/v1/crm/tickets/x/activity/y", "PUT", "authorization,content-type,if-match"),
        ("/v1/crm/tickets/x/activity/y", "GET", "authorization,if-none-match"),
        ("/graphql", "POST", "authorization, content-type, idempotency-key, last-event-id"),
        ("/graphql", "POST", "traceparent,tracestate,baggage,x-request-id"),
        ("/graphql", "GET", "Apollo-Require-Preflight"),
        ("/graphql", "POST", "apollographql-client-name,apollographql-client-version"),
    ],
)
@pytest.mark.parametrize("origin", [NAMED, "http://localhost:5173"])
async def test_a_preflight_of_a_named_origin_is_granted(
    open_to_one: Service, origin: str, path: str, method: str, header: str
) -> None:
    response = await open_to_one.http.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": header,
        },
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert method in response.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("origin", [OTHER, "null", f"{NAMED}.evil.example"])
async def test_a_preflight_of_another_origin_is_refused(open_to_one: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}

    response = await open_to_one.http.options("/graphql", headers=headers)

    assert response.status_code == 400
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.json()["code"] == "CROSS_ORIGIN_REFUSED"
    assert f"{origin} is not among" in response.json()["detail"]
    assert "TICKET_ACTIVITY_CORS_ORIGINS" in response.json()["detail"]


async def test_without_the_setting_a_preflight_is_refused_and_names_it(service: Service) -> None:
    headers = {"Origin": NAMED, "Access-Control-Request-Method": "POST"}

    response = await service.http.options("/graphql", headers=headers)

    assert response.status_code == 400
    assert "TICKET_ACTIVITY_CORS_ORIGINS" in response.json()["detail"]
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "header", "named"),
    [("DELETE", "content-type", "DELETE"), ("POST", "content-type, x-other, x-b", "x-b, x-other")],
)
async def test_a_preflight_for_more_than_is_allowed_names_it(
    open_to_one: Service, method: str, header: str, named: str
) -> None:
    response = await open_to_one.http.options(
        "/graphql",
        headers={
            "Origin": NAMED,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": header,
        },
    )

    assert response.status_code == 400
    assert named in response.json()["detail"]


async def test_a_named_origin_reads_a_fault(open_to_one: Service) -> None:
    client = await open_to_one.client()
    await open_to_one.execute("DROP TABLE ticket_activity")

    response = await client.get(uuid4(), uuid4(), Origin=NAMED)

    assert response.status_code == 500
    assert response.headers["Access-Control-Allow-Origin"] == NAMED


async def test_a_named_origin_reads_the_answer_and_its_headers(open_to_one: Service) -> None:
    client = await open_to_one.client()
    entry = await client.create_activity(await client.create_ticket())

    response = await client.get(entry["ticketId"], entry["id"], Origin=NAMED)

    assert response.headers["Access-Control-Allow-Origin"] == NAMED
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    named = {"ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"}
    assert named <= set(exposed)
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_without_the_setting_no_origin_is_named(service: Service) -> None:
    client = await service.client()

    response = await client.request("GET", "/openapi.json", headers={"Origin": NAMED})

    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None],
)
async def test_what_needs_no_preflight_cannot_mutate(
    open_to_one: Service, content_type: str | None
) -> None:
    client = await open_to_one.client()
    headers = {"Origin": OTHER} | ({"Content-Type": content_type} if content_type else {})

    response = await client.request("POST", "/graphql", content=MUTATION, headers=headers)

    assert response.status_code == 415
    assert not await open_to_one.database.read(has_tickets)


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("*", "named one by one"),
        ("https://*.example", "named one by one"),
        ("desk.example", "does not begin with https:// or http://"),
        ("null", "does not begin with https:// or http://"),
        ("ftp://desk.example", "does not begin with https:// or http://"),
        ("https://desk.example/", "ends with a slash"),
        ("https://desk.example/path", "has more than"),
        ("https://ada@desk.example", "has more than"),
        ("https://desk.example, http://localhost", "has a space"),
        ("https://desk.example,", "one comma too many"),
        ("https://Desk.example", "has capital letters"),
        ("https://desk.example:443", "names the port 443"),
        ("https://", "has no host"),
    ],
)
def test_an_origin_that_no_browser_sends_is_a_wrong_setting(value: str, mistake: str) -> None:
    with pytest.raises(ValueError, match="cors_origins") as raised:
        Settings(cors_origins=value)

    assert mistake in str(raised.value)


@pytest.mark.parametrize("value", ["", "https://a", "http://a:8080,https://[::1]:8443,https://b.c"])
def test_origins_as_browsers_send_them_are_a_setting(value: str) -> None:
    assert Settings(cors_origins=value).cors_origins == value
