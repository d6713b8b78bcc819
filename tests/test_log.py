"""The log: one line for each request and each write, for faults their traceback, and no secrets."""

import asyncio
import fcntl
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app.demo import ADA, COMMENT, PRINTER
from tests.support.live import follow, receive, subscribe, web_socket
from tests.support.process import ROOT, Process, environment, serve
from tests.test_metrics import free_port, total

PATH = f"/v1/crm/tickets/{PRINTER}/activity/{COMMENT}"
ENTRY = f'''query Entry {{
  ticketActivity(ticketId: "{PRINTER}", activityId: "{COMMENT}") {{ message }}
}}'''
WRONG = 'query Wrong { ticket(id: "no id") { id } }'
CONFLICT = f'''mutation Late {{
  updateTicketActivity(input: {{
    ticketId: "{PRINTER}", activityId: "{COMMENT}", message: "too late", expectedVersion: 1
  }}) {{ userErrors {{ code }} }}
}}'''
SECRET = "a message that is nobody else's business"

Line = dict[str, Any]


@dataclass
class Logged:
    """What a service logged while it was used."""

    text: str
    lines: list[Line]
    token: str

    def of(self, request_id: str) -> Line:
        [line] = [line for line in self.lines if line.get("request_id") == request_id]
        return line


async def use(process: Process) -> None:
    async with httpx2.AsyncClient(
        base_url=process.origin, headers={"Authorization": f"Bearer {process.token}"}
    ) as http:
        body = {"message": SECRET, "metadata": {SECRET: SECRET}}
        await http.put(PATH, json=body, headers={"X-Request-ID": "the-put"})
        query = {"query": ENTRY, "variables": {}}
        await http.post("/graphql", json=query, headers={"X-Request-ID": "the-query"})
        late = {"query": CONFLICT}
        await http.post("/graphql", json=late, headers={"X-Request-ID": "the-conflict"})
        stream = {"X-Request-ID": "the-stream", "Accept": "text/event-stream"}
        await http.post("/graphql", json={"query": WRONG}, headers=stream)
        parameters = {"query": "{ nothing }", "token": process.token}
        await http.get("/graphql", params=parameters, headers={"X-Request-ID": "the-mistake"})
        await http.get(f"/nowhere?token={process.token}", headers={"X-Request-ID": "the-404"})
        unauthorized = {"X-Request-ID": "the-401", "Authorization": f"Bearer x{process.token}"}
        await http.put(PATH, json={}, headers=unauthorized)
        for _ in range(3):
            await http.get("/healthz", headers={"X-Request-ID": "the-health"})
    address = {"X-Request-ID": "the-socket"}
    async with web_socket(process.origin, process.token, additional_headers=address) as ws:
        await subscribe(ws, "1", ENTRY)
        assert (await receive(ws))["type"] == "next"
        assert (await receive(ws))["type"] == "complete"
        await subscribe(ws, "2", CONFLICT)
        assert (await receive(ws))["type"] == "next"
        assert (await receive(ws))["type"] == "complete"
        await follow(ws, "3", ticketId=str(PRINTER))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    with serve(folder / "demo.db", log=folder / "log") as process:
        asyncio.run(use(process))
        assert process.end(signal.SIGTERM) == 0
        text = (folder / "log").read_text()
        yield Logged(text, [json.loads(line) for line in text.splitlines()], process.token)


def test_every_line_is_json_with_time_level_and_event(logged: Logged) -> None:
    assert all(line["time"].endswith("Z") and line["level"] for line in logged.lines)
    assert {line["event"] for line in logged.lines} >= {"request", "write", "Shutting down"}


def test_a_request_is_one_line_that_says_who_did_what_with_which_result(logged: Logged) -> None:
    put = logged.of("the-put")

    assert put.pop("ms") > 0
    assert put.pop("bytes") > len(SECRET)
    assert put.pop("time")
    assert put == {
        "level": "info",
        "event": "request",
        "request_id": "the-put",
        "door": "rest",
        "operation": "updateTicketActivity",
        "actor": str(ADA.actor_id),
        "status": 200,
        "code": None,
    }


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("the-query", ("graphql", "Entry", 200, None)),
        ("the-conflict", ("graphql", "Late", 200, "VERSION_CONFLICT")),
        ("the-stream", ("sse", "Wrong", 200, "INVALID_INPUT")),
        ("the-mistake", ("graphql", None, 200, "GRAPHQL_VALIDATION_FAILED")),
        ("the-404", ("other", None, 404, "NOT_FOUND")),
        ("the-401", ("rest", "updateTicketActivity", 401, "UNAUTHENTICATED")),
    ],
)
def test_a_line_has_door_operation_status_and_code(
    logged: Logged, request_id: str, expected: tuple[object, ...]
) -> None:
    line = logged.of(request_id)

    assert (line["door"], line["operation"], line["status"], line["code"]) == expected
    assert (line["actor"] is None) == (request_id in {"the-404", "the-401"})


def test_a_web_socket_is_a_line_for_each_operation_and_one_for_itself(logged: Logged) -> None:
    lines = [line for line in logged.lines if line.get("request_id") == "the-socket"]

    assert [(line["door"], line["operation"], line["status"], line["code"]) for line in lines] == [
        ("websocket", "Entry", 200, None),
        ("websocket", "Late", 200, "VERSION_CONFLICT"),
        ("websocket", "Follow", 499, None),
        ("graphql", None, 101, None),
    ]


def test_a_write_is_one_line_without_its_content(logged: Logged) -> None:
    *_, write = [line for line in logged.lines if line["event"] == "write"]

    assert UUID(write["ticket"]) == PRINTER
    assert UUID(write["entry"]) == COMMENT
    assert (write["version"], write["change"]) == (2, "updated")
    assert write["actor"] == str(ADA.actor_id)


def test_no_line_holds_a_message_a_token_or_a_query(logged: Logged) -> None:
    assert SECRET not in logged.text
    _, _, secret = logged.token.split("_", 2)  # which may have a _ itself
    assert secret not in logged.text
    assert "token=" not in logged.text
    assert "ticketActivity(" not in logged.text


def test_a_line_is_written_at_once_also_where_the_demo_was_loaded_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(tmp_path / "demo.db", log=log) as process:
        httpx2.get(f"{process.origin}/nowhere", headers={"X-Request-ID": "the-first"})

        end = time.monotonic() + 10
        while "the-first" not in log.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_health_checks_are_not_logged(logged: Logged) -> None:
    assert "the-health" not in logged.text


def test_a_fault_is_logged_once_with_its_traceback_under_the_id_of_the_request(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with serve(tmp_path / "demo.db", log=log) as process:
        with closing(sqlite3.connect(tmp_path / "demo.db")) as other:
            other.execute("ALTER TABLE ticket_activity RENAME COLUMN message TO other")
        response = httpx2.put(
            process.origin + PATH,
            json={"message": SECRET},
            headers={"Authorization": f"Bearer {process.token}", "X-Request-ID": "the-fault"},
        )
        assert process.end(signal.SIGTERM) == 0

    assert (response.status_code, response.headers["X-Request-ID"]) == (500, "the-fault")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [fault] = [line for line in lines if "exception" in line]
    assert fault["request_id"] == "the-fault"
    assert fault["exception"].startswith("Traceback (most recent call last):")
    assert "no such column" in fault["exception"]
    assert SECRET not in log.read_text()
    [request] = [line for line in lines if line["event"] == "request"]
    assert (request["status"], request["code"]) == (500, "INTERNAL")


def test_the_lines_of_requests_and_writes_can_be_switched_off_and_be_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(
        tmp_path / "demo.db", log=log, log_requests="false", log_writes="false", log_format="text"
    ) as process:
        httpx2.get(f"{process.origin}/openapi.json")
        assert process.end(signal.SIGTERM) == 0

    lines = log.read_text().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info +\] Shutting down +\[uvicorn\.error\] *", lines[-4])
    assert not [line for line in lines if "request_id" in line or "entry=" in line]


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe that nobody reads: its path to write to, and the end to read from."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    yield pipe, end
    os.close(end)


def read_all(end: int) -> bytes:
    """Read from a pipe until the processes that write to it have ended."""
    os.set_blocking(end, True)
    return b"".join(iter(lambda: os.read(end, 65536), b""))


async def _send_until_lines_are_dropped(process: Process, metrics_port: str) -> None:
    closing = {"Connection": "close"}  # so that all workers get requests
    async with httpx2.AsyncClient(base_url=process.origin, headers=closing, timeout=10) as http:
        while not total(metrics_port, "ticket_activity_log_lines_dropped_total"):
            sent = [http.get("/nowhere") for _ in range(100)]
            assert {answer.status_code for answer in await asyncio.gather(*sent)} == {404}


def test_a_log_that_nobody_reads_holds_up_nobody_and_says_afterwards_what_it_dropped(
    tmp_path: Path, unread: tuple[Path, int]
) -> None:
    pipe, end = unread
    port = free_port()
    with serve(
        tmp_path / "demo.db", 2, log=pipe, log_buffer_bytes=str(64 * 1024), metrics_port=port
    ) as process:
        asyncio.run(_send_until_lines_are_dropped(process, port))
        with ThreadPoolExecutor(1) as reader:
            read = reader.submit(read_all, end)
            assert process.end(signal.SIGTERM) == 0
            lines = [json.loads(line) for line in read.result().splitlines()]

    told = [line for line in lines if "dropped" in line]
    assert 0 < len(told) <= 2  # of each worker at most one
    for line in told:
        assert line["level"] == "warning"
        assert line["event"].startswith(f"{line['dropped']} lines of the log were dropped")
    assert lines[-1]["event"].startswith("Finished server process")


@pytest.fixture
def full(unread: tuple[Path, int]) -> Iterator[Path]:
    """A pipe that nobody reads and that takes nothing more."""
    pipe, _end = unread
    filling = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    os.write(filling, b"." * 4096)
    yield pipe
    os.close(filling)


def test_a_service_whose_log_nobody_reads_ends_on_a_signal(tmp_path: Path, full: Path) -> None:
    with serve(tmp_path / "demo.db", log=full) as process:
        assert process.end(signal.SIGTERM) == 0


def test_a_start_that_fails_ends_though_nobody_reads_why(tmp_path: Path, full: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, full.open("a") as log:
        settings = environment(tmp_path / "x.db", metrics_port=str(taken.getsockname()[1]))
        command = [str(ROOT / ".venv/bin/ticket-activity"), "serve"]
        ended = subprocess.run(command, env=settings, stderr=log, timeout=120, check=False)

    assert ended.returncode == 1


def test_a_disk_that_was_full_leaves_no_half_line_before_those_that_follow(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(tmp_path / "demo.db", log=log) as process:

        def ask_until(is_written: Callable[[bytes], bool]) -> None:
            httpx2.get(f"{process.origin}/nowhere")
            while not is_written(log.read_bytes()):
                time.sleep(0.01)

        ask_until(lambda text: b'"status":404' in text)
        before = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
        size = log.stat().st_size + 100
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (size, before[1]))
        ask_until(lambda text: len(text) == size)
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, before)
        ask_until(lambda text: b"were dropped" in text)
        assert process.end(signal.SIGTERM) == 0

    torn = []
    for line in log.read_bytes().splitlines():
        try:
            json.loads(line)
        except ValueError:
            torn.append(line)
    assert [len(line) for line in torn] == [100]


def test_a_service_without_standard_error_serves(tmp_path: Path) -> None:
    with serve(tmp_path / "demo.db", within=["sh", "-c", 'exec "$@" 2>&-', "sh"]) as process:
        assert httpx2.get(f"{process.origin}/nowhere").status_code == 404
        assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("sent", ["two words", "x" * 101, "", "line\\nbreak", "é"])
async def test_an_id_of_a_request_that_is_not_sane_is_replaced(origin: str, sent: str) -> None:
    async with httpx2.AsyncClient(base_url=origin) as http:
        response = await http.get("/healthz", headers=[(b"X-Request-ID", sent.encode())])

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


async def test_an_id_of_a_request_is_given_back(origin: str) -> None:
    async with httpx2.AsyncClient(base_url=origin) as http:
        response = await http.get("/healthz", headers={"X-Request-ID": "trace-1:a/b.c"})

    assert response.headers.get_list("X-Request-ID") == ["trace-1:a/b.c"]


def test_a_service_within_another_process_logs_no_requests() -> None:
    # In a new process: a command that another test ran here has begun the log.
    code = (
        "import app.main, sys; from app.log import events; "
        "sys.exit(events.has_requests or events.has_writes)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
