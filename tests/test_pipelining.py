"""Requests that are sent behind others on one connection, without waiting for the answers."""

import asyncio
import json

import pytest

from tests.support.live import FOLLOW
from tests.support.raw import connect
from tests.support.service import Client, Service

pytestmark = pytest.mark.any_engine

OPENAPI = "GET /openapi.json HTTP/1.1\nHost: x"
ABSENT = "GET /absent HTTP/1.1\nHost: x"


async def test_a_connection_may_have_so_many_requests_wait_and_no_more(origin: str) -> None:
    async with connect(origin) as connection:
        connection.writer.write(b"GET /absent HTTP/1.1\r\nHost: x\r\n\r\n" * 100)

        answers = [await connection.answer() for _ in range(33)]
        assert await connection.is_closed()

    assert {answer.status for answer in answers} == {404}
    assert ["connection" in answer.headers for answer in answers] == [False] * 32 + [True]


@pytest.mark.parametrize(
    "behind",
    [
        "this is no HTTP",
        "POST /absent HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nno length",
        "GET /graphql HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n"
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
    ids=["no HTTP", "a body without an end", "a WebSocket"],
)
async def test_what_is_wrong_behind_requests_leaves_them_their_answers(
    origin: str, behind: str
) -> None:
    async with connect(origin) as connection:
        for request in (OPENAPI, ABSENT, behind):
            connection.send(request)

        answers = [await connection.answer(), await connection.answer()]
        assert await connection.is_closed()

    assert [answer.status for answer in answers] == [200, 404]


async def test_a_stream_whose_client_is_gone_ends_whatever_it_had_sent_behind(
    service: Service, origin: str, author: Client
) -> None:
    variables = {"ticketId": await author.create_ticket()}
    body = json.dumps({"query": FOLLOW, "variables": variables}).encode()
    head = (
        f"POST /graphql HTTP/1.1\nHost: x\nAuthorization: Bearer {author.token}\n"
        f"Accept: text/event-stream\nContent-Type: application/json\nContent-Length: {len(body)}"
    )
    timeline = service.app.state.timeline
    async with connect(origin) as connection:
        connection.send(head, body)
        connection.send(OPENAPI)
        await connection.reader.readuntil(b"event: next")
        assert timeline.stream_count == 1

    async with asyncio.timeout(10):
        while timeline.stream_count:  # noqa: ASYNC110, there is no event for it
            await asyncio.sleep(0.01)
