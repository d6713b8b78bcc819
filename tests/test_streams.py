"""How streams behave when their parts fail, and what a connection holds: over real sockets."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from secrets import token_hex
from typing import Any

import httpx2
import pytest

from app.errors import Busy, RateLimited, Unauthenticated
from app.graphql_server.streams import StreamLimits
from app.server.websocket import WebSocketProtocol
from app.settings import Settings
from tests.support.live import (
    closing,
    event_stream,
    receive,
    results_of,
    send,
    serving,
    subscribe,
    web_socket,
)
from tests.support.service import JSON
from tests.support.stream_door import TICKS, Source, stream_door

pytestmark = pytest.mark.any_engine

BUSY = Busy("The service is busy.")
TEXT = "subscription { ticks { text(length: 65536) } }"


Opened = Callable[[str, str], AbstractAsyncContextManager[AsyncGenerator[JSON]]]


@asynccontextmanager
async def over_web_socket(origin: str, query: str) -> AsyncIterator[AsyncGenerator[JSON]]:
    async def results() -> AsyncGenerator[JSON]:
        while True:
            yield (await receive(ws))["payload"]

    async with web_socket(origin, "x", close_timeout=0.1) as ws:
        await subscribe(ws, query=query)
        async with aclosing(results()) as stream:
            yield stream


@asynccontextmanager
async def over_event_stream(origin: str, query: str) -> AsyncIterator[AsyncGenerator[JSON]]:
    async def results() -> AsyncGenerator[JSON]:
        async for event in results_of(events):
            yield json.loads(event["data"])

    async with event_stream(origin, "x", {}, query) as events, aclosing(results()) as stream:
        yield stream


STREAMS = pytest.mark.parametrize("opened", [over_web_socket, over_event_stream], ids=["ws", "sse"])


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def origin(source: Source, settings: Settings) -> AsyncIterator[str]:
    limits = StreamLimits(subscriptions=3, recheck=0.01)
    async with serving(stream_door(source, limits), settings) as address:
        yield address


async def read_events(events: Any) -> list[dict[str, str]]:
    async with asyncio.timeout(10):
        return [event async for event in events if "event" in event]


# BUSY: the client resumes


async def test_a_web_socket_closes_with_1012_when_a_subscription_cannot_begin_for_now(
    source: Source, origin: str
) -> None:
    source.failure = BUSY
    async with web_socket(origin, "x") as ws:
        await subscribe(ws, query=TICKS)

        assert await closing(ws) == (1012, "The service is busy.")


async def test_an_event_stream_that_cannot_begin_for_now_is_503(
    source: Source, origin: str
) -> None:
    source.failure = BUSY
    async with httpx2.AsyncClient() as http:
        response = await http.post(
            f"{origin}/graphql",
            json={"query": TICKS},
            headers={"Accept": "text/event-stream", "Authorization": "Bearer x"},
        )

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    [error] = response.json()["errors"]
    assert error["extensions"]["code"] == "RECONNECT"


@pytest.mark.parametrize("query", [TICKS, "subscription { ticks { number failing } }"])
async def test_a_web_socket_closes_with_1012_when_an_event_cannot_be_read_for_now(
    source: Source, origin: str, query: str
) -> None:
    async with web_socket(origin, "x") as ws:
        await subscribe(ws, query=query)
        await source.until_open(1)
        source.failure = BUSY
        source.send(1 if "failing" in query else BUSY)

        assert await closing(ws) == (1012, "The service is busy.")
    await source.until_open(0)


@pytest.mark.parametrize("query", [TICKS, "subscription { ticks { number failing } }"])
async def test_an_event_stream_ends_without_complete_when_an_event_cannot_be_read_for_now(
    source: Source, origin: str, query: str
) -> None:
    async with event_stream(origin, "x", {}, query) as events:
        await source.until_open(1)
        source.failure = BUSY
        source.send(1 if "failing" in query else BUSY)

        assert await read_events(events) == []
    await source.until_open(0)


async def test_a_query_that_is_busy_leaves_the_web_socket_open(source: Source, origin: str) -> None:
    source.failure = BUSY
    async with web_socket(origin, "x") as ws:
        await subscribe(ws, query="{ failing }")

        message = await receive(ws)
        assert message["payload"]["errors"][0]["extensions"]["code"] == "BUSY"
        assert await receive(ws) == {"id": "1", "type": "complete"}


async def test_a_web_socket_whose_token_cannot_be_looked_at_for_now_closes_with_1012(
    source: Source, origin: str
) -> None:
    source.authenticating = [BUSY]
    async with web_socket(origin, None) as ws:
        await send(ws, type="connection_init", payload={"Authorization": "Bearer x"})

        assert await closing(ws) == (1012, "The service is busy.")


@STREAMS
async def test_a_stream_lives_on_while_its_token_cannot_be_looked_at_for_now(
    source: Source, origin: str, opened: Opened
) -> None:
    async with opened(origin, TICKS) as results:
        await source.until_open(1)
        source.authenticating = [BUSY, BUSY, BUSY]
        await source.until(lambda source: not source.authenticating)
        source.send(7)

        assert await anext(results) == {"data": {"ticks": {"number": 7}}}


# Other ends


@pytest.mark.parametrize("error", [Unauthenticated("The token has ended."), RuntimeError("secret")])
async def test_a_token_that_ends_in_mid_stream_ends_the_web_socket(
    source: Source, origin: str, error: Exception
) -> None:
    async with web_socket(origin, "x") as ws:
        await subscribe(ws, query=TICKS)
        await source.until_open(1)
        source.authenticating = [error]

        ended = (4401, "The token has ended.")
        is_fault = isinstance(error, RuntimeError)
        assert await closing(ws) == ((1011, "Internal error") if is_fault else ended)
    await source.until_open(0)


async def test_an_address_that_is_limited_is_told_to_connect_again_later(
    source: Source, origin: str
) -> None:
    source.authenticating = [RateLimited("Too many requests.", 30)]
    async with web_socket(origin, None) as ws:
        await send(ws, type="connection_init", payload={"Authorization": "Bearer x"})

        assert await closing(ws) == (1012, "Too many requests.")


async def test_a_token_that_ends_in_mid_stream_ends_the_event_stream_with_an_error(
    source: Source, origin: str
) -> None:
    async with event_stream(origin, "x", {}, TICKS) as events:
        await source.until_open(1)
        source.authenticating = [Unauthenticated("The token has ended.")]

        next_, complete = await read_events(events)
    assert json.loads(next_["data"])["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert complete["event"] == "complete"
    await source.until_open(0)


async def test_a_fault_of_authentication_in_mid_stream_ends_the_event_stream_in_order(
    source: Source, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with event_stream(origin, "x", {}, TICKS) as events:
        await source.until_open(1)
        source.authenticating = [RuntimeError("secret")]

        assert await read_events(events) == []  # and no `complete`: the client resumes
    [fault] = [record for record in caplog.records if record.name == "app"]
    assert fault.message.startswith("Internal error")
    await source.until_open(0)


# Ids that are used again


async def test_complete_and_subscribe_back_to_back_give_one_new_subscription(
    source: Source, origin: str
) -> None:
    async with web_socket(origin, "x") as ws:
        await subscribe(ws, "1", TICKS)
        for _ in range(50):
            await send(ws, id="1", type="complete")
            await subscribe(ws, "1", TICKS)
        await send(ws, type="ping")
        assert await receive(ws) == {"type": "pong"}
        await source.until_open(1)
        source.send(7)

        message = {"id": "1", "type": "next", "payload": {"data": {"ticks": {"number": 7}}}}
        assert await receive(ws) == message
        await send(ws, id="1", type="complete")
        await source.until_open(0)
        source.send(8)
        await send(ws, type="ping")
        assert await receive(ws) == {"type": "pong"}
    await source.until_open(0)


async def test_an_id_used_again_counts_once_toward_the_limit(source: Source, origin: str) -> None:
    async with web_socket(origin, "x") as ws:
        for name in ["1", "2", "3"] * 5:
            await send(ws, id=name, type="complete")
            await subscribe(ws, name, TICKS)
        await subscribe(ws, "4", TICKS)

        refused = await receive(ws)
        assert (refused["id"], refused["type"]) == ("4", "error")
        assert refused["payload"][0]["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
        await source.until_open(3)
        await send(ws, id="2", type="complete")
        await subscribe(ws, "4", TICKS)
        await send(ws, type="ping")
        assert await receive(ws) == {"type": "pong"}
        await source.until_open(3)
        source.send(1)
        assert {(await receive(ws))["id"] for _ in range(3)} == {"1", "3", "4"}
    await source.until_open(0)


# What is shared


async def test_an_event_is_executed_once_for_all_who_get_the_same(
    source: Source, origin: str
) -> None:
    async with (
        web_socket(origin, "x") as one,
        web_socket(origin, "x") as two,
        web_socket(origin, "y") as other,
    ):
        for ws in (one, two, other):
            await subscribe(ws, query=TICKS)
        await source.until_open(3)
        source.send(7)
        for ws in (one, two, other):
            assert (await receive(ws))["payload"] == {"data": {"ticks": {"number": 7}}}

    assert source.executed == 2  # once for each token


# HEAD


@pytest.mark.parametrize("query", [TICKS, "{ __typename }"])
async def test_head_of_a_stream_has_its_headers_no_body_and_leaves_the_connection_usable(
    source: Source, origin: str, query: str
) -> None:
    headers = {"Accept": "text/event-stream", "Authorization": "Bearer x"}
    async with httpx2.AsyncClient(
        headers=headers, limits=httpx2.Limits(max_connections=1), timeout=5
    ) as http:
        head = await http.head(f"{origin}/graphql", params={"query": query})
        again = await http.post(
            f"{origin}/graphql", json={"query": "{ __typename }"}, headers={"Accept": "*/*"}
        )

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert again.json() == {"data": {"__typename": "Query"}}
    assert source.queues == []


# Clients that do not read


@STREAMS
async def test_a_client_that_does_not_read_holds_one_event_and_ends_with_its_token(
    source: Source, origin: str, opened: Opened
) -> None:
    async with opened(origin, TEXT):
        await source.until_open(1)
        for number in range(1000):  # 64 MiB, of which the sockets take a few
            source.send(number)
        await source.until(lambda source: 0 < source.queues[0].qsize() < 1000)
        source.authenticating = [Unauthenticated("The token has ended.")]

        await source.until_open(0)


async def test_a_client_that_does_not_read_is_not_read_from(source: Source, origin: str) -> None:
    async with web_socket(origin, "x", max_queue=1, close_timeout=0.1) as ws:
        payload = {"text": token_hex(5000)}

        async def flood() -> None:
            while True:
                await send(ws, type="ping", payload=payload)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 2)
        ws.transport.abort()


async def test_empty_parts_of_a_message_are_not_kept(origin: str) -> None:
    async with web_socket(origin, None) as ws:

        async def parts() -> AsyncIterator[str]:
            yield '{"type":'
            for _ in range(1000):
                yield ""
            await (await ws.ping())  # the server has read them
            protocols = [it for it in gc.get_objects() if type(it) is WebSocketProtocol]
            assert [len(protocol.frames) for protocol in protocols if protocol.frames] == [1]
            yield '"ping"}'

        await ws.send(parts())

        assert await receive(ws) == {"type": "pong"}


@pytest.mark.parametrize("compression", [False, True])
async def test_messages_of_every_length_arrive_whole(
    source: Source, settings: Settings, compression: bool
) -> None:
    """The length of a frame is written in three ways (RFC 6455 section 5.2)."""
    chosen = settings.model_copy(update={"websocket_compression": compression})
    async with serving(stream_door(source), chosen) as origin, web_socket(origin, "x") as ws:
        for size in (0, 88, 89, 65_498, 65_499, 200_000):
            text = "é" * (size % 7) + "x" * (size - 2 * (size % 7))
            await send(ws, type="ping", payload={"text": text})
            assert await receive(ws) == {"type": "pong", "payload": {"text": text}}


async def test_messages_are_compressed_only_where_the_operator_asks_for_it(
    source: Source, settings: Settings
) -> None:
    for is_on in (False, True):
        chosen = settings.model_copy(update={"websocket_compression": is_on})
        async with serving(stream_door(source), chosen) as origin, web_socket(origin, "x") as ws:
            assert ws.response
            extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "")
            assert ("permessage-deflate" in extensions) is is_on
