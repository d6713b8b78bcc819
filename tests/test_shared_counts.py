"""Processes that share the counts of rate limits in a real Redis, and what they do without it."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from app import admission, shared_counts
from app.settings import Settings
from tests.support.process import serve
from tests.support.redis import COMMAND, RedisServer, running_redis
from tests.support.service import Client, Service, start
from tests.test_rate_limits import send_from

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.skipif(COMMAND is None, reason="needs redis-server or valkey-server"),
]

QUERY = "{ rateLimit { remaining } }"
COST = 6
SLOWED = "ticket_activity_slowed_authentications", ()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis as long as it takes on a busy machine."""
    monkeypatch.setattr(shared_counts, "WAIT_SECONDS", 20)
    monkeypatch.setattr(shared_counts, "_GIVE_UP_SECONDS", 20)


PATIENT = pytest.mark.usefixtures("patient")


@asynccontextmanager
async def processes(
    count: int, settings: Settings, server: RedisServer, **change: Any
) -> AsyncIterator[list[Service]]:
    """Start services on one database that share counts, as processes do."""
    shared = settings.model_copy(update={"rate_limit_redis_url": server.url} | change)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(start(shared)) for _ in range(count)]


async def ask(service: Service, client: Client) -> httpx2.Response:
    """Send a query to a process with the token of a client of any process."""
    return await service.http.post(
        "/graphql",
        json={"query": QUERY},
        headers={"Authorization": f"Bearer {client.token}"},
    )


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something holds that no event tells of."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def redis_count(server: RedisServer, name: str) -> int:
    """Return what all have counted of a limit, of all tokens."""
    with redis.Redis.from_url(server.url) as client:
        return sum(int(client.get(key) or 0) for key in client.scan_iter(f"*:{name}/*"))


def failures(service: Service) -> float:
    [count] = service.app.state.measure()["ticket_activity_shared_count_failures", ()]
    return float(count)


@PATIENT
async def test_a_token_has_its_limit_once_in_all_processes(
    settings: Settings, server: RedisServer
) -> None:
    valkey = server.url.replace("redis", "valkey")
    async with (
        processes(1, settings, server, rate_limit_requests=10) as [one],
        processes(1, settings, server, rate_limit_requests=10, rate_limit_redis_url=valkey) as [
            two
        ],
    ):
        client, other = await one.client(), await one.client()

        statuses = [
            (await ask(service, client)).status_code for _ in range(10) for service in (one, two)
        ]
        others = await ask(two, other)

    passed = statuses.count(200)
    assert 10 <= passed <= 12  # each process may pass it by one
    assert statuses == [200] * passed + [429] * (20 - passed)
    assert others.status_code == 200


@PATIENT
async def test_many_requests_at_once_pass_the_limit_by_little(
    settings: Settings, server: RedisServer
) -> None:
    async with processes(2, settings, server, rate_limit_requests=100) as services:
        client = await services[0].client()

        answers = await asyncio.gather(
            *(ask(service, client) for _ in range(100) for service in services)
        )

    passed = [answer for answer in answers if answer.status_code == 200]
    assert 100 <= len(passed) <= 110


@PATIENT
async def test_what_a_token_has_spent_is_told_without_its_next_request(
    settings: Settings, server: RedisServer
) -> None:
    async with processes(1, settings, server, rate_limit_cost=1_000_000) as [one]:
        client = await one.client()
        await ask(one, client)
        for _ in range(20):
            await ask(one, client)

        await until(lambda: redis_count(server, "cost") == 21 * COST)


@PATIENT
async def test_a_process_takes_over_when_the_minute_of_another_ends(
    settings: Settings, server: RedisServer
) -> None:
    async with processes(2, settings, server, rate_limit_requests=2) as [one, two]:
        client = await one.client()
        two.clock.advance(hours=-3)  # how far apart the clocks are does not matter
        await ask(one, client)
        await ask(one, client)  # tells of the first
        with redis.Redis.from_url(server.url) as keys:
            [key] = keys.scan_iter()
            keys.expire(key, 30)

        answer = await ask(two, client)

    assert answer.headers["RateLimit"] in {f'"requests";r=0;t={left}' for left in range(20, 31)}


async def test_without_its_redis_a_process_limits_by_its_own_counts(
    settings: Settings, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "app.shared_counts")
    async with processes(1, settings, server, rate_limit_requests=30) as [service]:
        client = await service.client()
        server.end()

        answers = [await ask(service, client) for _ in range(31)]
        server.start()
        await until(lambda: len(caplog.messages) == 2)
        refused = await ask(service, client)
        other = await ask(service, await service.client())

    assert [answer.status_code for answer in answers] == [200] * 30 + [429]
    assert failures(service) >= 1
    away, back = caplog.messages
    assert away.startswith("Redis does not answer (")
    assert away.endswith("): until it does, each process limits rates by its own counts.")
    assert back == "Redis answers again: processes share the counts of rate limits."
    assert refused.status_code == 429
    assert other.status_code == 200


async def test_a_redis_that_hangs_holds_up_a_request_once(
    settings: Settings, server: RedisServer
) -> None:
    async with processes(1, settings, server, rate_limit_requests=1000) as [service]:
        clients = [await service.client() for _ in range(30)]
        await ask(service, clients[0])
        server.send(signal.SIGSTOP)
        began = time.monotonic()

        together = await asyncio.gather(*(ask(service, client) for client in clients))
        after_first = time.monotonic() - began
        one_by_one = [await ask(service, client) for client in clients * 5]
        seconds = time.monotonic() - began - after_first
        server.send(signal.SIGCONT)
        await until(lambda: not service.app.state.shared_counts.is_away)
        left = (await ask(service, clients[1])).headers["RateLimit"]

    assert {answer.status_code for answer in [*together, *one_by_one]} == {200}
    # Were each request of them held up, these would take 7 and 37 seconds.
    assert after_first < 5
    assert seconds < 15
    assert left.startswith('"requests";r=99')


async def test_a_service_starts_without_its_redis(settings: Settings, server: RedisServer) -> None:
    server.end()
    async with processes(1, settings, server, rate_limit_requests=1) as [service]:
        client = await service.client()

        statuses = [(await ask(service, client)).status_code for _ in range(2)]

    assert statuses == [200, 429]


@PATIENT
async def test_an_address_has_its_failures_once_in_all_processes(
    settings: Settings, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "HELD_SECONDS", 0)
    async with processes(2, settings, server, rate_limit_failures=10) as services:
        answers = [await send_from("192.0.2.1", service) for _ in range(10) for service in services]
        slowed = [service.app.state.measure()[SLOWED] for service in services]
        await send_from("192.0.2.2", services[0])
        after_another = services[0].app.state.measure()[SLOWED]

    assert {answer.status_code for answer in answers} == {401}
    assert 8 <= sum(count for [count] in slowed) <= 10  # each process may pass it by one
    assert after_another == slowed[0]


async def test_without_its_redis_a_process_counts_failures_for_itself(
    settings: Settings, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "HELD_SECONDS", 0)
    async with processes(1, settings, server, rate_limit_failures=10) as [service]:
        server.send(signal.SIGSTOP)
        began = time.monotonic()

        flood = await asyncio.gather(
            *(send_from(f"192.0.2.{number}", service) for number in range(50))
        )
        seconds = time.monotonic() - began
        await asyncio.gather(*(send_from("198.51.100.1", service) for _ in range(12)))
        counts = service.app.state.measure()

    assert {answer.status_code for answer in flood} == {401}
    assert seconds < 1
    assert counts[SLOWED] == [2]


def test_workers_share_their_counts(tmp_path: Path, server: RedisServer) -> None:
    with serve(
        tmp_path / "demo.db", 2, rate_limit_requests="20", rate_limit_redis_url=server.url
    ) as process:
        headers = {"Authorization": f"Bearer {process.token}"}
        answers = [
            httpx2.post(f"{process.origin}/graphql", json={"query": QUERY}, headers=headers)
            for _ in range(30)  # each on a connection of its own, which either worker may take
        ]

    assert answers[0].json() == {"data": {"rateLimit": None}}  # the demo has no limit of cost
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=20;w=60'
    statuses = [answer.status_code for answer in answers]
    passed = statuses.count(200)
    assert 20 <= passed <= 22  # each process may pass it by one
    assert statuses[-4:] == [429] * 4
