"""Clients that send slowly, or behind a request that fails, over real connections."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.demo import COMMENT, PRINTER
from app.settings import Settings
from tests.support.live import serving
from tests.support.process import Process, serve
from tests.support.raw import Connection, connect

PATH = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"
OPENAPI = "GET /openapi.json HTTP/1.1\nHost: service.test"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that waits half a second for a request."""
    file = tmp_path_factory.mktemp("hasty") / "tickets.db"
    with serve(file, max_receive_seconds="0.5") as process:
        yield process


async def assert_end_of(connection: Connection, status: int) -> bytes:
    """Expect one response that ends the connection; return its body."""
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert await connection.is_closed()
    return answer.body


async def test_a_head_that_does_not_arrive_is_408(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        connection.writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: ")

        assert await assert_end_of(connection, 408) == b""


@pytest.mark.parametrize("path", [PATH, "/graphql"])
async def test_a_body_that_does_not_arrive_is_408(hasty: Process, path: str) -> None:
    method = "PUT" if path == PATH else "POST"
    async with connect(hasty.origin) as connection:
        connection.send(
            f"{method} {path} HTTP/1.1\nHost: service.test\nAuthorization: Bearer {hasty.token}\n"
            "Content-Type: application/json\nContent-Length: 100",
            b"{",
        )

        assert b"0.5 seconds" in await assert_end_of(connection, 408)


@pytest.mark.parametrize("part", ["head", "body"])
async def test_what_trickles_for_ever_is_408(hasty: Process, part: str) -> None:
    begin = "GET /openapi.json HTTP/1.1\r\nX-Endless: "
    if part == "body":
        begin = (
            f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hasty.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
    async with connect(hasty.origin) as connection:
        connection.writer.write(begin.encode())
        answer = asyncio.create_task(connection.answer())
        while not answer.done():
            connection.writer.write(b" ")
            await asyncio.wait([answer], timeout=0.05)

    assert (await answer).status == 408


async def test_a_client_that_sends_nothing_is_closed(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        assert await connection.is_closed()


async def test_a_body_that_goes_on_after_its_answer_is_cut(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        connection.send(f"PUT {PATH} HTTP/1.1\nHost: service.test\nContent-Length: 100", b"{")

        assert (await connection.answer()).status == 401
        assert await connection.is_closed()


async def test_requests_that_arrive_in_time_share_a_connection(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        for _ in range(3):
            connection.send(OPENAPI)
            answer = await connection.answer()
            assert (answer.status, "connection" in answer.headers) == (200, False)


async def test_what_is_no_http_is_400_whose_type_is_not_to_be_guessed(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        connection.writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await connection.answer()

        assert (answer.status, answer.headers["x-content-type-options"]) == (400, "nosniff")


async def test_requests_sent_behind_a_fault_are_answered(tmp_path: Path) -> None:
    file = tmp_path / "tickets.db"
    with serve(file) as process:
        with closing(sqlite3.connect(file)) as database:
            database.execute("DROP TABLE ticket_activity")
        async with connect(process.origin) as connection:
            head = f"GET {PATH} HTTP/1.1\nHost: service.test\nAuthorization: Bearer "
            for request in (head + process.token, OPENAPI, head + process.token, OPENAPI):
                connection.send(request)

            answers = [await connection.answer() for _ in range(4)]

        assert [answer.status for answer in answers] == [500, 200, 500, 200]
        assert not any("connection" in answer.headers for answer in answers)


@pytest.mark.any_engine
async def test_a_body_that_comes_byte_by_byte_wakes_the_application_once() -> None:
    received: list[bytes] = []

    async def count_messages(scope: Scope, receive: Receive, send: Send) -> None:
        is_complete = False
        while not is_complete:
            message = await receive()
            received.append(message["body"])
            is_complete = not message["more_body"]
        await Response(b"")(scope, receive, send)

    async with (
        serving(cast("Starlette", count_messages), Settings()) as origin,
        connect(origin) as connection,
    ):
        connection.send("POST / HTTP/1.1\nHost: service.test\nContent-Length: 40200")
        for _ in range(200):
            connection.writer.write(b"x")
            await asyncio.sleep(0.001)
        connection.writer.write(b"y" * 40_000)
        answer = await connection.answer()

    assert answer.status == 200
    assert b"".join(received) == b"x" * 200 + b"y" * 40_000
    assert received[0].startswith(b"x" * 200 + b"y"), "the first bytes woke nobody"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
    ],
    ids=["path", "field", "fields"],
)
async def test_a_head_that_goes_on_and_on_is_431(hasty: Process, begin: bytes, more: bytes) -> None:
    async with connect(hasty.origin) as connection:
        # The service may close the connection before it has read everything: then it is reset.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            connection.writer.write(begin + more * (1_000_000 // len(more)))
            await connection.writer.drain()

            assert (await connection.answer()).status == 431


async def test_a_field_behind_a_body_is_no_field_of_the_head(hasty: Process) -> None:
    async with connect(hasty.origin) as connection:
        connection.send(
            "POST /graphql HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n"
            "Content-Type: application/json",
            b"2\r\n{}\r\n0\r\nAuthorization: Bearer %b\r\n\r\n" % hasty.token.encode(),
        )

        assert (await connection.answer()).status == 401
