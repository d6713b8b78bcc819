"""The files of `scripts/deploy/`, checked by the programs that read them and run for real."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from app.cli import main
from app.demo import PRINTER
from app.server import protocol
from tests.support.live import FOLLOW, events_of, receive, send, stand
from tests.support.process import ROOT, environment, serve
from tests.test_exposure import certificate as certificate  # noqa: PLC0414, a fixture
from tests.test_metrics import free_port

DEPLOY = ROOT / "scripts/deploy"
SERVICE = (DEPLOY / "ticket-activity.service").read_text()
INSTALLED = "/opt/ticket-activity/.venv"

Output = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units in a folder, for the command of this environment."""
    unit = tmp_path / "ticket-activity.service"
    unit.write_text(SERVICE.replace(INSTALLED, str(ROOT / ".venv")))
    shutil.copy(DEPLOY / "ticket-activity.socket", tmp_path)
    return tmp_path


def analyze(*arguments: object) -> str:
    run = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@needs_systemd
def test_systemd_takes_the_units_and_finds_the_service_well_confined(units: Path) -> None:
    names = ("ticket-activity.service", "ticket-activity.socket")

    said = analyze("verify", "--man=no", *(units / name for name in names))
    analyze("security", "--offline=true", "--threshold=20", units / names[0])

    assert said == ""


def test_the_unit_gives_the_service_the_time_and_the_descriptors_it_needs() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(SERVICE)
    service = unit["Service"]

    assert int(service["TimeoutStopSec"]) > protocol._GRACE_SECONDS + 20
    assert int(service["LimitNOFILE"]) > 10_000
    assert service["ExecStart"] == f"{INSTALLED}/bin/ticket-activity serve"


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd is not installed")
def test_the_first_client_of_a_socket_of_systemd_starts_the_service(tmp_path: Path) -> None:
    port = free_port()
    given = environment(tmp_path / "tickets.db")
    setting = "TICKET_ACTIVITY_DATABASE_URL"
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}"]
    options = ["-E", f"{setting}={given[setting]}"]
    started = subprocess.Popen(
        [*command, *options, str(ROOT / ".venv/bin/ticket-activity"), "serve"],
        env=given,
        stderr=subprocess.DEVNULL,
    )
    try:
        transport = httpx2.HTTPTransport(retries=10)  # until it listens
        with httpx2.Client(transport=transport, timeout=60) as http:
            answer = http.get(f"http://127.0.0.1:{port}/readyz")
        assert answer.json() == {"status": "ready"}
    finally:
        started.terminate()
        started.wait(timeout=30)


# nginx


@pytest.fixture
def proxied(tmp_path: Path, certificate: Path) -> Iterator[tuple[str, str, Path]]:
    """The address of nginx with the example before a service, a token, and its log."""
    port, log = free_port(), tmp_path / "access.log"
    with serve(tmp_path / "demo.db", trusted_proxies="127.0.0.1") as process:
        example = (DEPLOY / "nginx.conf").read_text()
        for old, new in {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "127.0.0.1:8000": process.origin.removeprefix("http://"),
            "/etc/ssl/tickets.pem": str(certificate),
            "/etc/ssl/tickets.key": str(certificate),
            "/var/log/nginx/tickets.log": str(log),
        }.items():
            assert old in example
            example = example.replace(old, new)
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; user root; pid {tmp_path}/pid; events {{}}\nhttp {{\n{example}\n}}\n"
        )
        nginx = subprocess.Popen(
            ["nginx", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"]
        )
        try:
            yield f"https://127.0.0.1:{port}/tickets", process.token, log
        finally:
            nginx.terminate()
            nginx.wait(timeout=30)


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
async def test_nginx_passes_requests_streams_and_web_sockets_on_and_logs_no_query(
    proxied: tuple[str, str, Path], certificate: Path
) -> None:
    address, token, log = proxied
    trusting = ssl.create_default_context(cafile=certificate)
    bearer = {"Authorization": f"Bearer {token}"}
    transport = httpx2.AsyncHTTPTransport(retries=10, verify=trusting)  # until it listens
    follow_all = {"query": FOLLOW, "variables": {"ticketId": str(PRINTER)}}

    async with httpx2.AsyncClient(transport=transport, headers=bearer, timeout=30) as http:
        ready = await http.get(f"{address}/readyz?token={token}")
        large = await http.post(f"{address}/graphql", content=b" " * (1024 * 1024 + 1))
        accepted = {"Accept": "text/event-stream"}
        async with (
            http.stream("POST", f"{address}/graphql", json=follow_all, headers=accepted) as stream,
            asyncio.timeout(10),
        ):  # buffered, the first event would not come
            events = events_of(stream)
            begun = await stand(events)
    async with connect(
        address.replace("https", "wss") + "/graphql",
        subprotocols=[Subprotocol("graphql-transport-ws")],
        ssl=trusting,
    ) as ws:
        await send(ws, type="connection_init", payload=bearer)
        acknowledged = await receive(ws)

    assert ready.json() == {"status": "ready"}
    assert large.status_code in (413, 415)
    assert large.json()["errors"]
    assert begun
    assert acknowledged == {"type": "connection_ack"}
    assert f'"GET /tickets/readyz" 200 {len(ready.content)}' in log.read_text()
    assert ready.headers["X-Request-ID"] in log.read_text()
    assert token not in log.read_text()


# What an operator asks before the first start


def test_the_version_is_told(capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ticket-activity {version('ticket-activity')}\n"


def test_settings_are_checked_without_a_database(
    tmp_path: Path, monkeypatch: Environment, capsys: Output
) -> None:
    file = tmp_path / "tickets.db"
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", f"sqlite+aiosqlite:///{file}")

    assert main(["check-config"]) == 0

    assert f"The settings are right. The database is sqlite+aiosqlite:///{file}." in (
        capsys.readouterr().out
    )
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TICKET_ACTIVITY_PORT", "x"),
        ("TICKET_ACTIVITY_TLS_CERTIFICATE", "/nowhere.pem"),
        ("TICKET_ACTIVITY_TRUSTED_DOCUMENTS", "/nowhere.json"),
        ("TICKET_ACTIVITY_DATABASE_URL", "mysql://ada:hunter2@host/x"),
    ],
)
def test_a_wrong_setting_is_found_by_the_check(
    monkeypatch: Environment, capsys: Output, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    assert main(["check-config"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert name in line or "/nowhere" in line
    assert "hunter2" not in line
