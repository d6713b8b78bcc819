"""HTTP/1.1 on one connection: what `app.server.exchange` and `HttpProtocol` do, over sockets."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from app.demo import COMMENT, PRINTER
from app.server.exchange import Exchange
from tests.support.process import Process, serve
from tests.support.raw import Connection, connect

pytestmark = pytest.mark.any_engine

PATH = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    file = tmp_path_factory.mktemp("exchanges") / "tickets.db"
    with serve(file, max_subscriptions_per_token="1") as process:
        yield process


def head(process: Process, method: str, path: str, *fields: str) -> str:
    token = f"Authorization: Bearer {process.token}"
    return "\n".join((f"{method} {path} HTTP/1.1", "Host: service.test", token, *fields))


def query(process: Process, text: str) -> tuple[str, bytes]:
    body = json.dumps({"query": text}).encode()
    fields = "Content-Type: application/json", f"Content-Length: {len(body)}"
    return head(process, "POST", "/graphql", *fields), body


async def assert_usable(connection: Connection, process: Process) -> None:
    connection.send(*query(process, "{ __typename }"))
    answer = await connection.answer()
    assert (answer.status, answer.body) == (200, b'{"data":{"__typename":"Query"}}')


async def test_pipelined_requests_are_answered_in_their_order(process: Process) -> None:
    async with connect(process.origin) as connection:
        for number in range(10):
            connection.send(*query(process, f"{{ a{number}: __typename }}"))
            connection.send(head(process, "GET", PATH))

        for number in range(10):
            answer = await connection.answer()
            assert json.loads(answer.body) == {"data": {f"a{number}": "Query"}}
            assert json.loads((await connection.answer()).body)["id"] == str(COMMENT)


async def test_the_response_to_head_has_no_body(process: Process) -> None:
    async with connect(process.origin) as connection:
        connection.send(head(process, "HEAD", PATH))
        first = (await connection.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert first.startswith("http/1.1 200 ")
        assert "content-length: " in first

        await assert_usable(connection, process)


async def test_the_response_304_has_no_body(process: Process) -> None:
    async with connect(process.origin) as connection:
        connection.send(head(process, "GET", PATH, 'If-None-Match: "1"'))
        answer = await connection.answer()
        assert (answer.status, answer.headers["etag"]) == (304, '"1"')
        assert "transfer-encoding" not in answer.headers

        await assert_usable(connection, process)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_body_in_chunks_is_read(process: Process, size: int) -> None:
    body = json.dumps({"query": "{ __typename }" + " " * 2000}).encode()
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    fields = "Content-Type: application/json", "Transfer-Encoding: chunked"
    async with connect(process.origin) as connection:
        connection.send(head(process, "POST", "/graphql", *fields))
        for part in (*parts, b""):
            connection.writer.write(b"%x\r\n%b\r\n" % (len(part), part))

        assert (await connection.answer()).body == b'{"data":{"__typename":"Query"}}'
        await assert_usable(connection, process)


async def test_a_body_is_asked_for_once(process: Process) -> None:
    text, body = query(process, "{ __typename }")
    async with connect(process.origin) as connection:
        connection.send(text + "\nExpect: 100-continue")
        assert (await connection.answer()).status == 100
        connection.writer.write(body)

        assert (await connection.answer()).status == 200


async def test_a_body_that_comes_after_its_answer_is_skipped(process: Process) -> None:
    async with connect(process.origin) as connection:
        connection.send(
            "POST /graphql HTTP/1.1\nHost: service.test\nContent-Type: application/json\n"
            "Content-Length: 30"
        )
        assert (await connection.answer()).status == 401
        connection.writer.write(b"x" * 30)

        await assert_usable(connection, process)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_wants_no_more_is_closed(process: Process, version: str) -> None:
    wanted = head(process, "GET", PATH, "Connection: close")
    async with connect(process.origin) as connection:
        connection.send(wanted.replace("HTTP/1.1", f"HTTP/{version}"))
        answer = await connection.answer()

        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await connection.is_closed()


async def test_clients_that_leave_disturb_nobody(process: Process) -> None:
    async with connect(process.origin) as connection:
        for _ in range(30):
            async with connect(process.origin) as leaving:
                leaving.send(head(process, "GET", PATH))
                leaving.send(*query(process, "{ viewer { actorId } }"))
                await leaving.writer.drain()
                leaving.writer.transport.abort()

        await assert_usable(connection, process)


async def test_a_stream_ends_when_its_client_leaves_behind_another_request(
    process: Process,
) -> None:
    text, body = query(
        process, f'subscription {{ ticketActivityChanges(ticketId: "{PRINTER}") {{ cursor }} }}'
    )
    text += "\nAccept: text/event-stream"
    async with connect(process.origin) as leaving:
        leaving.send(text, body)
        leaving.send(head(process, "GET", PATH))
        await leaving.reader.readuntil(b"event: next")
        leaving.writer.transport.abort()

    answer = b""
    while b"text/event-stream" not in answer:  # the one subscription of the token has not ended
        async with connect(process.origin) as connection:
            connection.send(text, body)
            answer = await connection.reader.readuntil(b"\r\n\r\n")


class Sink(asyncio.Transport):
    """Takes what a connection sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.sent += b"<closed>"

    def is_closing(self) -> bool:
        return self.sent.endswith(b"<closed>")


def start(field: bytes, value: bytes) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(field, value)]}


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (start(b"x-echo", b"a\r\nset-cookie: b"), b""),
        (start(b"x-echo", b"a\nb"), b""),
        (start(b"content-length", b"3"), b"ab"),
        (start(b"content-length", b"1"), b"ab"),
    ],
)
async def test_a_response_that_would_confuse_the_client_is_not_sent(
    message: dict[str, Any], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(message)
        await send({"type": "http.response.body", "body": body})

    sink = Sink()
    exchange = Exchange(
        {"method": "GET"},
        sink,
        FlowControl(sink),
        [],
        expects_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )

    await exchange.run(app)

    assert sink.sent == b"<closed>"
    assert "Exception in ASGI application" in caplog.text
