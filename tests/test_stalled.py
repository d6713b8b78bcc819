"""Clients that send and do not read: what they are sent is bounded, and in the end they are cut."""

import asyncio
import base64
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from app.demo import COMMENT, PRINTER
from tests.support.process import Process, serve
from tests.support.service import activity_url

pytestmark = pytest.mark.any_engine

FOLLOW = f"""subscription {{
  ticketActivityChanges(ticketId: "{PRINTER}") {{ change {{ ticketActivity {{ message }} }} }}
}}"""
LARGE = "x" * 60_000


def frame(payload: bytes, opcode: int = 1, is_last: bool = True) -> bytes:
    """Return a frame of a client, masked with zeros as RFC 6455 section 5.3 allows."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([opcode | 0x80 * is_last]) + length + bytes(4) + payload


def connect(process: Process) -> socket.socket:
    address = urlsplit(process.origin)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    return client


def open_event_stream(process: Process) -> socket.socket:
    client = connect(process)
    body = json.dumps({"query": FOLLOW})
    client.sendall(
        f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {process.token}\r\n"
        "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    read_until(client, b'"change":null')
    return client


def open_web_socket(process: Process) -> socket.socket:
    client = connect(process)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        "GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
    )
    read_until(client, b"\r\n\r\n")
    payload = {"Authorization": f"Bearer {process.token}"}
    client.sendall(frame(json.dumps({"type": "connection_init", "payload": payload}).encode()))
    read_until(client, b"connection_ack")
    subscribe = {"id": "1", "type": "subscribe", "payload": {"query": FOLLOW}}
    client.sendall(frame(json.dumps(subscribe).encode()))
    read_until(client, b'"change":null')
    return client


def read_until(client: socket.socket, text: bytes) -> None:
    read = b""
    while text not in read:
        chunk = client.recv(4096)
        assert chunk, read
        read += chunk


def send_until_cut(client: socket.socket) -> bool:
    """Send until the answer is that there is no such connection; False after a while."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            client.send(b" ")
        except ConnectionError:
            return True
        time.sleep(0.1)
    return False


async def write(process: Process, count: int) -> None:
    url = f"{process.origin}{activity_url(PRINTER, COMMENT)}"
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {process.token}"}) as http:
        for number in range(count):
            response = await http.put(url, json={"message": f"{number} {LARGE}"})
            assert response.status_code == 200


@pytest.mark.parametrize("open_", [open_event_stream, open_web_socket])
async def test_a_client_that_takes_nothing_is_cut_off(
    tmp_path: Path, open_: Callable[[Process], socket.socket]
) -> None:
    with serve(tmp_path / "tickets.db", max_stall_seconds="1") as process:
        client = await asyncio.to_thread(open_, process)
        await write(process, 100)  # more than the sockets of both sides hold

        assert await asyncio.to_thread(send_until_cut, client)
        client.close()


async def test_pings_of_a_client_that_does_not_read_are_not_kept(tmp_path: Path) -> None:
    with serve(tmp_path / "tickets.db") as process:
        client = await asyncio.to_thread(open_web_socket, process)
        await write(process, 100)
        before = resident(process)
        pings = frame(b"x" * 125, opcode=9) * 500
        for _ in range(200):  # 12 MiB of answers, if all were kept
            await asyncio.to_thread(client.sendall, pings)

        assert resident(process) - before < 6 * 1024
        client.close()


def resident(process: Process) -> int:
    """Return the memory of the server, in KiB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])
