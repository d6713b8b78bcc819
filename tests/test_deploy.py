"""The files of `deploy/`, checked by the programs that read them and run for real."""

import shutil
import subprocess
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest

from app.cli import main
from app.server import protocol
from tests.support.process import ROOT, environment
from tests.test_metrics import free_port

DEPLOY = ROOT / "deploy"
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
