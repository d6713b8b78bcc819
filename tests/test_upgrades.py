"""Requests that ask for another protocol by `Upgrade`, over real connections."""

import json

import pytest

from tests.support.raw import connect
from tests.support.service import Client, activity_url

pytestmark = pytest.mark.any_engine

H2C = "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAEAAEAAAAIAAAAB"
"""What Java's HttpClient sends with its first request, whatever the method."""

WEB_SOCKET = (
    "GET /graphql HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)
OPENAPI = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_counts_whatever_other_protocol_the_client_would_speak(
    origin: str, author: Client, is_chunked: bool
) -> None:
    entry = await author.create_activity(await author.create_ticket(), message="0")
    body = json.dumps({"message": "1"}).encode()
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    head = (
        f"PUT {activity_url(entry['ticketId'], entry['id'])} HTTP/1.1\nHost: x\n{H2C}\n"
        f"Authorization: Bearer {author.token}\nContent-Type: application/json\n{framing}"
    )
    async with connect(origin) as connection:
        connection.send(head, sent)
        first = await connection.answer()
        connection.send(head)
        await connection.writer.drain()
        connection.writer.write(sent + OPENAPI)  # in another packet, with a request behind it

        answers = [first, await connection.answer(), await connection.answer()]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [json.loads(answer.body).get("message") for answer in answers] == ["1", "1", None]


async def test_what_stands_in_a_body_is_no_request(origin: str) -> None:
    """Else a proxy and the service would disagree where a request ends."""
    async with connect(origin) as connection:
        connection.send(f"POST /nowhere HTTP/1.1\nHost: x\n{H2C}\nContent-Length: {len(OPENAPI)}")
        assert (await connection.answer()).status == 404
        connection.writer.write(OPENAPI + OPENAPI.replace(b"openapi.json", b"end"))

        assert (await connection.answer()).status == 404
        assert await connection.is_closed()


async def test_a_tunnel_is_refused(origin: str) -> None:
    assert await status_of(origin, "CONNECT example.com:443 HTTP/1.1\nHost: x") == 400


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        ("Content-Length: 5", b"hello", 400),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", 400),
        ("\n".join(f"X-{number}: 1" for number in range(130)), b"", 431),
        (f"X-Long: {'x' * 9000}", b"", 431),
    ],
)
async def test_a_web_socket_that_cannot_be_opened_is_refused(
    origin: str, more: str, body: bytes, status: int
) -> None:
    assert await status_of(origin, f"{WEB_SOCKET}\n{more}", body) == status


async def status_of(origin: str, head: str, body: bytes = b"") -> int:
    """Expect one response that ends the connection; return its status."""
    async with connect(origin) as connection:
        connection.send(head, body)
        answer = await connection.answer()
        assert await connection.is_closed()
        return answer.status
