"""What pages of other origins may do: those that are named, and the rest."""

from collections.abc import AsyncIterator

import pytest

from app.settings import Settings
from app.store.reader import has_tickets
from tests.support.service import Service, start

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


async def test_a_named_origin_reads_the_answer_and_its_headers(open_to_one: Service) -> None:
    client = await open_to_one.client()
    entry = await client.create_activity(await client.create_ticket())

    response = await client.get(entry["ticketId"], entry["id"], Origin=NAMED)

    assert response.headers["Access-Control-Allow-Origin"] == NAMED
    assert "ETag" in response.headers["Access-Control-Expose-Headers"]
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
    assert not await has_tickets(open_to_one.database)


@pytest.mark.parametrize(
    "value", ["*", "https://*", "desk.example", "https://a/path", "https://a,"]
)
def test_an_origin_that_is_none_is_a_wrong_setting(value: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Settings(cors_origins=value)
