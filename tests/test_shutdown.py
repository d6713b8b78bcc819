"""What clients meet when the service starts, ends and reloads, over real connections."""

import asyncio
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from app.demo import COMMENT, PRINTER
from tests.support.process import ROOT, Process, environment, serve
from tests.support.raw import connect

WORKERS = pytest.mark.parametrize("workers", [1, 2])
PATH = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"
OPENAPI = "GET /openapi.json HTTP/1.1\nHost: service.test"


def put(token: str, length: int) -> str:
    return (
        f"PUT {PATH} HTTP/1.1\nHost: service.test\nAuthorization: Bearer {token}\n"
        f"Content-Type: application/json\nContent-Length: {length}"
    )


async def no_longer_listening(process: Process) -> None:
    """Wait until the service has taken the signal: nobody can connect any more."""
    host, port = process.origin.removeprefix("http://").split(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
        writer.close()


@WORKERS
async def test_what_arrives_on_a_kept_connection_during_the_drain_is_answered(
    tmp_path: Path, workers: int
) -> None:
    with serve(tmp_path / "demo.db", workers, drain_seconds="20") as process:
        async with connect(process.origin) as kept:
            kept.send(OPENAPI)
            assert "connection" not in (await kept.answer()).headers

            process.popen.send_signal(signal.SIGTERM)
            await no_longer_listening(process)
            body = b'{"message": "late"}'
            kept.send(put(process.token, len(body)), body)
            late = await kept.answer()

            assert (late.status, late.headers["connection"]) == (200, "close")
            assert b'"message":"late"' in late.body
            assert await kept.is_closed()
        assert process.popen.wait(timeout=30) == 0


async def test_idle_connections_are_closed_after_the_drain(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", drain_seconds="0.2") as process:
        async with connect(process.origin) as used, connect(process.origin) as unused:
            used.send(OPENAPI)
            await used.answer()

            assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0

            assert await used.is_closed()
            assert await unused.is_closed()


async def test_an_upgrade_during_the_drain_is_refused(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", drain_seconds="20") as process:
        async with connect(process.origin) as kept:
            kept.send(OPENAPI)
            await kept.answer()
            process.popen.send_signal(signal.SIGTERM)
            await no_longer_listening(process)

            kept.send(
                "GET /graphql HTTP/1.1\nHost: service.test\nConnection: Upgrade\n"
                "Upgrade: websocket\nSec-WebSocket-Version: 13\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
                "Sec-WebSocket-Protocol: graphql-transport-ws"
            )

            refusal = await kept.answer()
            assert (refusal.status, refusal.headers["connection"]) == (503, "close")
        assert process.popen.wait(timeout=30) == 0


@WORKERS
def test_a_signal_at_the_start_is_heeded(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path / "demo.db", workers) as process:
        assert process.end(signal.SIGTERM) == 0


@WORKERS
def test_a_signal_while_it_starts_is_heeded(tmp_path: Path, workers: int) -> None:
    starting = subprocess.Popen(
        [ROOT / "scripts" / "serve", "--workers", str(workers)],
        env=environment(tmp_path / "demo.db") | {"PYTHONVERBOSE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starting.stderr
    with closing(starting.stderr) as imported:
        for line in imported:
            if line.startswith("import 'uvicorn.protocols"):
                break
        starting.send_signal(signal.SIGTERM)
        imported.read()

    assert starting.wait(timeout=30) in {0, -signal.SIGTERM}


async def test_a_reload_replaces_the_workers_and_refuses_nobody(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", 2) as process:
        before = process.workers
        assert len(before) == 2
        process.popen.send_signal(signal.SIGHUP)

        async with httpx2.AsyncClient(base_url=process.origin) as http:
            async with asyncio.timeout(60):
                while before & process.workers:
                    response = await http.get("/openapi.json")
                    assert response.status_code == 200
        assert len(process.workers) == 2
        assert process.end(signal.SIGTERM) == 0


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", 2) as process:
        before = process.workers
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)

        async with httpx2.AsyncClient(base_url=process.origin) as http, asyncio.timeout(60):
            while len(process.workers - {min(before)}) < 2:
                assert (await http.get("/openapi.json")).status_code == 200
        assert process.end(signal.SIGTERM) == 0
