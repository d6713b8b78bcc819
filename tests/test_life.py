"""How operators and supervisors of processes end, reload and restart the service."""

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from app.server.protocol import ServerConfig
from app.server.server import Server
from app.settings import Settings
from app.store.damage import require_undamaged
from tests.support.process import ROOT, Process, environment, passing, serve
from tests.support.raw import connect
from tests.test_damage import FILL
from tests.test_shutdown import WORKERS

OPENAPI = "GET /openapi.json HTTP/1.1\nHost: service.test\nConnection: close"


async def status(origin: str, path: str) -> int:
    """Ask on a new connection."""
    async with httpx2.AsyncClient(base_url=origin, timeout=30) as http:
        return (await http.get(path)).status_code


async def until_not_ready(origin: str) -> None:
    async with asyncio.timeout(30):
        while await status(origin, "/readyz") == 200:
            pass


@WORKERS
async def test_it_is_not_ready_first_and_still_serves_for_the_delay(
    tmp_path: Path, workers: int
) -> None:
    with serve(tmp_path / "demo.db", workers, shutdown_delay_seconds="60") as process:
        process.popen.send_signal(signal.SIGTERM)
        await until_not_ready(process.origin)

        assert await status(process.origin, "/openapi.json") == 200
        assert await status(process.origin, "/healthz") == 200
        # A second signal ends the delay.
        assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0


async def test_a_reload_of_one_process_keeps_its_id_and_refuses_nobody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    file = tmp_path / "demo.db"
    with serve(file, log=log, drain_seconds="0.1", database_check_seconds="1e-9") as process:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(FILL)
        process.popen.send_signal(signal.SIGHUP)

        async with asyncio.timeout(60):
            while log.read_text().count(" serves http://") < 2:
                assert await status(process.origin, "/openapi.json") == 200
        assert await status(process.origin, "/readyz") == 200
        assert process.end(signal.SIGTERM) == 0
    # A start would say that there was no time to look for damage: a reload does not look again.
    assert not require_undamaged(file, 1e-9)
    assert "to look through it for damage" not in log.read_text()


@WORKERS
def test_it_says_in_one_line_what_serves_and_ends_on_sigquit_as_on_sigterm(
    tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"
    with serve(tmp_path / "demo.db", workers, log=log) as process:
        assert process.end(signal.SIGQUIT) == 0

    [line] = re.findall('"(ticket-activity [^"]*)"', log.read_text())
    assert re.fullmatch(
        rf"ticket-activity [\d.]+ serves {process.origin} with {workers} process(es)? on "
        rf"sqlite\+aiosqlite:///{tmp_path}/demo.db at migration \d{{4}}\.",
        line,
    )


# Workers that die


async def test_workers_that_keep_dying_end_the_service_with_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(tmp_path / "demo.db", 2, log=log) as process:
        killed: set[int] = set()
        async with asyncio.timeout(60):
            while process.popen.poll() is None:
                for worker in process.workers - killed:
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
                await asyncio.sleep(0.05)

        assert process.popen.returncode == 1
    assert log.read_text().splitlines()[-1] == (
        "ticket-activity: 5 workers died in a minute, the last: it was killed by SIGKILL."
    )


async def test_a_worker_that_cannot_start_again_ends_the_service_with_the_reason(
    tmp_path: Path,
) -> None:
    log, manifest = tmp_path / "log", tmp_path / "manifest.json"
    manifest.write_text("{}")
    with serve(tmp_path / "demo.db", 2, log=log, trusted_documents=str(manifest)) as process:
        manifest.write_text("an upgrade that was done by half")
        os.kill(min(process.workers), signal.SIGKILL)

        assert await asyncio.to_thread(process.popen.wait, 60) == 1
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(process.origin)
    last = log.read_text().splitlines()[-1]
    assert "ticket-activity: 5 workers died in a minute, the last: " in last
    assert str(manifest) in last
    assert "Traceback" not in log.read_text()


async def test_a_part_that_fails_ends_the_process() -> None:
    fail = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failing())
            yield

    async def failing() -> None:
        await fail.wait()
        raise RuntimeError("the writer failed")

    def nothing() -> None:
        return

    config = ServerConfig(Starlette(lifespan=lifespan), Settings())
    server = Server(config, nothing, nothing, on_start=fail.set)
    listener = socket.create_server(("127.0.0.1", 0))

    async with asyncio.timeout(10):
        await server.serve([listener])

    assert server.has_failed


# Sockets of systemd


async def test_a_socket_of_systemd_refuses_nobody_over_a_restart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def start(workers: int) -> Process:
            passed = [listener.fileno()]
            return serve(tmp_path / "demo.db", workers, within=passing(listener), pass_fds=passed)

        with start(1) as process:
            assert process.origin == origin
            assert process.end(signal.SIGTERM) == 0
        async with connect(origin) as waiting:
            waiting.send(OPENAPI)
            with start(2):
                assert (await waiting.answer()).status == 200


def test_more_sockets_than_one_are_refused_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@"', "sh", ROOT / "scripts/serve"],
        env=environment(tmp_path / "demo.db"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert (
        ended.stderr == "ticket-activity: systemd passed 2 sockets; the service listens on one.\n"
    )


# File descriptors


async def test_when_descriptors_run_out_it_says_so_once_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    within = ["prlimit", "--nofile=100:100"]
    with serve(tmp_path / "demo.db", within=within, log=log, max_receive_seconds="60") as process:
        async with AsyncExitStack() as stack, asyncio.timeout(30):
            while "file descriptors are in use" not in log.read_text():
                await stack.enter_async_context(connect(process.origin))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)  # the service looks ten times a second

        async with asyncio.timeout(30):
            while not await is_answered(process):
                pass
        assert log.read_text().count("All 100 file descriptors are in use") == 1


async def is_answered(process: Process) -> bool:
    try:
        return await status(process.origin, "/readyz") == 200
    except httpx2.TransportError:
        return False
