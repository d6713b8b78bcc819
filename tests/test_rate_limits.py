"""How much one token may ask for in a minute, on every door, and who sends no valid token."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app import admission
from app.cli import main
from app.rate_limits import RateLimit
from app.settings import Settings
from app.store.queries import has_tickets
from tests.support.live import (
    event_stream,
    follow,
    listening,
    receive,
    serving,
    subscribe,
    web_socket,
)
from tests.support.process import ROOT, environment, token
from tests.support.service import CREATE_TICKET, JSON, Client, Clock, Service, activity_url, start
from tests.test_metrics import free_port

pytestmark = pytest.mark.any_engine

WRONG = "wrong"
VIEWER = "{ viewer { id } }"
COST_OF_VIEWER = 6
RATE_LIMIT = "{ rateLimit { cost limit remaining resetAt } }"
COST_OF_RATE_LIMIT = 9
NO_ENTRY = activity_url(*(f"019320a4-0000-7000-8000-00000000ff0{number}" for number in (1, 2)))


@asynccontextmanager
async def limited(settings: Settings, **change: Any) -> AsyncIterator[Service]:
    async with start(settings.model_copy(update=change)) as service:
        yield service


async def post(client: Client, query: str, **headers: str) -> httpx2.Response:
    return await client.request("POST", "/graphql", json={"query": query}, headers=headers)


def error_of(document: JSON) -> JSON:
    [error] = document["errors"]
    assert isinstance(error, dict)
    return error


# Requests


async def test_requests_over_the_limit_are_refused_on_both_apis_until_the_minute_ends(
    settings: Settings,
) -> None:
    async with limited(settings, rate_limit_requests=3) as service:
        client, other = await service.client(), await service.client()
        service.clock.advance(hours=1)

        first = await post(client, VIEWER)
        service.clock.advance(seconds=20.5)
        second = await client.request("GET", NO_ENTRY)
        third = await post(client, "{ nonsense }")
        graphql, rest = await post(client, VIEWER), await client.request("PUT", NO_ENTRY, json={})
        others = await post(other, VIEWER)
        service.clock.advance(seconds=39.5)
        again = await post(client, VIEWER)

    left = [response.headers["RateLimit"] for response in (first, second, third, graphql, rest)]
    assert left == [
        '"requests";r=2;t=60',
        '"requests";r=1;t=40',
        '"requests";r=0;t=40',
        '"requests";r=0;t=40',
        '"requests";r=0;t=40',
    ]
    assert (second.status_code, graphql.status_code, rest.status_code) == (404, 429, 429)
    assert graphql.headers["Retry-After"] == rest.headers["Retry-After"] == "40"
    assert graphql.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    assert graphql.json() == {
        "errors": [
            {
                "message": "The token has 0 of its 3 requests a minute left, and this takes 1; "
                "send it again in 40 seconds.",
                "extensions": {"code": "RATE_LIMITED", "retryAfter": 40},
            }
        ]
    }
    assert rest.headers["Content-Type"] == "application/problem+json"
    assert (rest.json()["title"], rest.json()["code"]) == ("Too Many Requests", "RATE_LIMITED")
    assert "data" in others.json()
    assert "data" in again.json()
    assert again.headers["RateLimit"] == '"requests";r=2;t=60'


@pytest.mark.parametrize("media_type", ["application/json", "application/graphql-response+json"])
async def test_a_refusal_has_the_status_429_for_every_client(
    settings: Settings, media_type: str
) -> None:
    async with limited(settings, rate_limit_requests=1) as service:
        client = await service.client()
        await post(client, VIEWER)

        refused = await post(client, VIEWER, Accept=media_type)

    assert refused.status_code == 429
    assert refused.headers["Content-Type"].startswith(media_type)


async def test_health_and_documents_are_not_limited_and_need_no_token(settings: Settings) -> None:
    async with limited(settings, rate_limit_requests=1, rate_limit_failures=1) as service:
        answers = [
            await service.http.get(path)
            for path in ("/healthz", "/readyz", "/openapi.json")
            for _ in range(3)
        ]

    assert {answer.status_code for answer in answers} == {200}
    assert all("RateLimit" not in answer.headers for answer in answers)


def test_the_tokens_that_are_remembered_are_bounded() -> None:
    limit = RateLimit("requests", 1, Clock().seconds)

    for number in range(20_000):
        limit.charge(limit.window(str(number), 0.0), 1)

    assert len(limit._windows) == 10_000
    assert limit.window("19999", 1.0).used == 1


# Cost


async def test_a_query_is_told_its_cost_and_what_is_left(settings: Settings) -> None:
    async with limited(settings, rate_limit_cost=20_000) as service:
        client = await service.client()
        await post(client, VIEWER)
        service.clock.advance(seconds=30)

        answer = await post(client, RATE_LIMIT)

    left = 20_000 - COST_OF_VIEWER - COST_OF_RATE_LIMIT
    assert answer.json()["data"]["rateLimit"] == {
        "cost": COST_OF_RATE_LIMIT,
        "limit": 20_000,
        "remaining": left,
        "resetAt": "2026-11-23T15:08:05.514Z",
    }
    assert answer.headers["RateLimit"] == f'"cost";r={left};t=30'
    assert answer.headers["RateLimit-Policy"] == '"cost";q=20000;w=60'


async def test_without_a_limit_of_cost_there_is_no_rate_limit_to_tell(settings: Settings) -> None:
    for requests in (0, 5):
        async with limited(settings, rate_limit_requests=requests) as service:
            answer = await post(await service.client(), RATE_LIMIT)

        assert answer.json() == {"data": {"rateLimit": None}}
        assert ("RateLimit" in answer.headers) == bool(requests)


async def test_an_operation_that_costs_more_than_is_left_is_not_executed(
    settings: Settings,
) -> None:
    async with limited(settings, rate_limit_cost=50, max_query_cost=50) as service:
        client = await service.client()
        spent = await post(client, RATE_LIMIT)

        document = await client.graphql(CREATE_TICKET, input={})
        smaller = await post(client, VIEWER)

        is_stored = await service.database.read(has_tickets)
    assert spent.headers["RateLimit"] == '"cost";r=41;t=60'
    error = error_of(document)
    assert error["extensions"] == {"code": "RATE_LIMITED", "retryAfter": 60}
    assert error["message"].startswith("The token has 41 of its 50 cost a minute left, and this ")
    assert "data" not in document
    assert not is_stored
    assert smaller.json()["data"]
    assert smaller.headers["RateLimit"] == f'"cost";r={41 - COST_OF_VIEWER};t=60'


async def test_a_document_that_is_refused_costs_by_its_length(settings: Settings) -> None:
    async with limited(settings, rate_limit_cost=20_000) as service:
        client = await service.client()
        wrong = (f"{{ {'x' * 95} }}", "{" * 99, f"query A {VIEWER} query B {VIEWER}{' ' * 48}")

        answers = [await post(client, query) for query in wrong]
        unknown = await client.request("POST", "/graphql", json={"documentId": "x"})

    left = [answer.headers["RateLimit"] for answer in answers]
    assert left == [f'"cost";r={20_000 - cost};t=60' for cost in (5, 10, 15)]
    assert unknown.headers["RateLimit"] == left[-1]
    assert [error_of(answer.json())["extensions"]["code"] for answer in answers] == [
        "GRAPHQL_VALIDATION_FAILED",
        "GRAPHQL_PARSE_FAILED",
        "OPERATION_RESOLUTION_FAILURE",
    ]


# Streams


async def test_each_operation_of_a_web_socket_counts_but_no_event(settings: Settings) -> None:
    async with limited(settings, rate_limit_requests=6) as service, listening(service) as origin:
        writer = await service.client()
        follower = await service.client()
        ticket = await writer.create_ticket()
        async with web_socket(origin, follower.token) as ws:
            await follow(ws, ticketId=ticket)
            for _ in range(3):
                await writer.create_activity(ticket)
                assert (await receive(ws))["type"] == "next"
            for number in range(5):
                await subscribe(ws, f"query {number}", VIEWER)
                assert (await receive(ws))["type"] == "next"
                assert (await receive(ws))["type"] == "complete"

            await subscribe(ws, "one too many", VIEWER)
            refused = await receive(ws)
            await writer.create_activity(ticket)
            event = await receive(ws)
        counts = service.app.state.measure()

    assert (refused["id"], refused["type"]) == ("one too many", "error")
    assert error_of({"errors": refused["payload"]})["extensions"] == {
        "code": "RATE_LIMITED",
        "retryAfter": 60,
    }
    assert event["type"] == "next"
    assert counts["ticket_activity_rate_limited", ("websocket",)] == [1]
    assert counts["ticket_activity_rate_limited", ("graphql",)] == [0]


async def test_an_operation_of_a_web_socket_that_is_malformed_counts_too(
    settings: Settings,
) -> None:
    async with limited(settings, rate_limit_requests=1) as service, listening(service) as origin:
        client = await service.client()
        async with web_socket(origin, client.token) as ws:
            codes = []
            for number in range(2):
                payload = {"query": VIEWER, "variables": []}
                message = {"type": "subscribe", "id": str(number), "payload": payload}
                await ws.send(json.dumps(message))
                refused = await receive(ws)
                codes.append(error_of({"errors": refused["payload"]})["extensions"]["code"])

    assert codes == ["INVALID_INPUT", "RATE_LIMITED"]


async def test_a_stream_of_events_that_is_over_the_limit_is_not_opened(settings: Settings) -> None:
    async with limited(settings, rate_limit_requests=1) as service, listening(service) as origin:
        client = await service.client()
        async with event_stream(origin, client.token, {}, VIEWER):
            pass

        with pytest.raises(AssertionError, match="RATE_LIMITED"):
            async with event_stream(origin, client.token, {}, VIEWER):
                pass


# Requests without a valid token


async def send_from(address: str, service: Service, token: str = WRONG) -> httpx2.Response:
    transport = httpx2.ASGITransport(service.app, client=(address, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://service.test") as http:
        headers = {"Authorization": f"Bearer {token}"}
        return await http.post("/graphql", json={"query": VIEWER}, headers=headers)


async def test_an_address_with_many_wrong_tokens_waits_and_a_valid_one_beside_it_does_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MAX_HELD_PER_ADDRESS", 3)
    async with limited(settings, rate_limit_failures=2) as service:
        client = await service.client()
        await send_from("192.0.2.1", service)
        await send_from("192.0.2.1", service)
        began = time.monotonic()
        wrong = [asyncio.create_task(send_from("192.0.2.1", service)) for _ in range(5)]

        valid = await send_from("192.0.2.1", service, client.token)
        elsewhere = await send_from("192.0.2.2", service)
        answered = [await task for task in wrong if task.done()]
        answers = await asyncio.gather(*wrong)
        seconds = time.monotonic() - began
        counts = service.app.state.measure()

    assert valid.status_code == 200
    assert elsewhere.status_code == 401
    assert 401 not in [answer.status_code for answer in answered]
    assert seconds >= 1
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(401), statuses.count(429)) == (3, 2)
    refused = answers[statuses.index(429)]
    assert error_of(refused.json())["extensions"] == {"code": "RATE_LIMITED", "retryAfter": 60}
    assert counts["ticket_activity_slowed_authentications", ()] == [5]
    assert counts["ticket_activity_rate_limited", ("graphql",)] == [2]


async def test_the_addresses_of_one_network_of_ipv6_are_one(settings: Settings) -> None:
    async with limited(settings, rate_limit_failures=1) as service:
        await send_from("2001:db8::1", service)

        held = asyncio.create_task(send_from("2001:db8::ffff:2", service))
        other = await send_from("2001:db8:0:1::1", service)

        assert other.status_code == 401
        assert not held.done()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)


@pytest.mark.parametrize(
    "addresses",
    [("192.0.2.1", "::ffff:192.0.2.1"), ("", "no address"), ("2001:db8::", "2001:DB8:0:0::1")],
)
async def test_an_address_is_one_however_it_is_written(
    settings: Settings, addresses: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "HELD_SECONDS", 0)
    async with limited(settings, rate_limit_failures=1) as service:
        for address in addresses:
            await send_from(address, service)
        counts = service.app.state.measure()

    assert counts["ticket_activity_slowed_authentications", ()] == [1]


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
async def test_what_a_client_says_of_its_address_makes_it_no_other(
    settings: Settings, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy appends the address that it sees to what the client has sent."""
    monkeypatch.setattr(admission, "HELD_SECONDS", 0)
    async with (
        limited(settings, rate_limit_failures=1, trusted_proxies=trusted) as service,
        serving(service.app, service.settings) as origin,
        httpx2.AsyncClient(base_url=origin) as http,
    ):
        for number in range(5):
            said = f"198.51.100.{number}, 192.0.2.1"
            await http.get(NO_ENTRY, headers={"X-Forwarded-For": said})
        counts = service.app.state.measure()

    assert counts["ticket_activity_slowed_authentications", ()] == [4]


async def test_the_address_is_the_one_that_a_named_proxy_gives(settings: Settings) -> None:
    behind = {"rate_limit_failures": 1, "trusted_proxies": "127.0.0.1"}
    async with (
        limited(settings, **behind) as service,
        serving(service.app, service.settings) as origin,
        httpx2.AsyncClient(base_url=origin) as http,
    ):

        async def send(address: str) -> httpx2.Response:
            return await http.get(NO_ENTRY, headers={"X-Forwarded-For": address})

        began = time.monotonic()
        answers = [await send(f"192.0.2.{number}") for number in range(10)]
        seconds = time.monotonic() - began
        await send("192.0.2.0")
        held = time.monotonic() - began - seconds

    assert {answer.status_code for answer in answers} == {401}
    assert seconds < 1 <= held


# Settings


def limits_of(settings: Settings) -> list[int]:
    return [
        settings.rate_limit_requests,
        settings.rate_limit_cost,
        settings.rate_limit_failures,
    ]


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
def test_what_only_this_machine_reaches_has_limits_behind_a_proxy_alone(
    tmp_path: Path, trusted: str
) -> None:
    file, port = tmp_path / "limits.db", str(free_port())
    command = str(ROOT / ".venv/bin/ticket-activity")
    subprocess.run([command, "migrate"], env=environment(file), check=True, capture_output=True)
    access = token(file, "activity:read")
    settings = environment(file, port=port, trusted_proxies=trusted)
    with subprocess.Popen([command, "serve"], env=settings, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            while b"127.0.0.1" not in process.stderr.readline():
                pass
            answer = httpx2.post(
                f"http://127.0.0.1:{port}/graphql",
                json={"query": "{ viewer { id } }"},
                headers={"Authorization": f"Bearer {access}"},
            )
        finally:
            process.terminate()

    assert answer.status_code == 200
    assert ("RateLimit" in answer.headers) == bool(trusted)


def test_a_demo_has_no_limits_but_those_that_are_set() -> None:
    assert limits_of(Settings()) == [6000, 1_000_000, 30]
    assert limits_of(Settings().without_default_rate_limits()) == [0, 0, 0]
    assert limits_of(Settings(rate_limit_cost=10_000).without_default_rate_limits()) == [
        0,
        10_000,
        0,
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RATE_LIMIT_COST", "9999", "one operation may cost 10000"),
        ("RATE_LIMIT_COST", "3000000000", "less than or equal to 2147483647"),
        ("RATE_LIMIT_REDIS_URL", "http://:secret@cache:6379", "'http://***@cache:6379': it begins"),
        ("RATE_LIMIT_REQUESTS", "-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_limit_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(f"TICKET_ACTIVITY_{name}", value)

    assert main(["check-config"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert f"TICKET_ACTIVITY_{name} is " in line
    assert said in line
