"""The servers that are measured, each one process on a database of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, Self
from uuid import UUID

ROOT: Final = Path(__file__).parent.parent.parent
_COMMAND: Final = str(ROOT / ".venv/bin/ticket-activity")
_START_SECONDS: Final = 60
_ACTOR: Final = UUID("0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e")
ALL_SCOPES: Final = (
    "activity:read",
    "activity:write",
    "activity:private",
    "activity:moderate",
)
_PARENT: Final = 1  # the place of the parent's id, after the name
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A process that listens on a port of this machine."""

    popen: "subprocess.Popen[bytes]"
    port: int

    def cpu_seconds(self) -> float:
        """Return the time that all threads of the process and of its workers have run."""
        family = [
            fields for pid, fields in _processes() if self.popen.pid in {pid, int(fields[_PARENT])}
        ]
        return sum(int(fields[11]) + int(fields[12]) for fields in family) / _TICKS

    def memory_mib(self) -> float:
        """Return the resident memory of the process."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def kill(self) -> None:
        """End the process as a crash would: what was acknowledged must be in the file."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_of_error: object) -> None:
        self.kill()


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Yield the id of each process and what its `stat` has after the name (proc_pid_stat(5))."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            yield int(file.parent.name), file.read_text().rpartition(")")[2].split()


def seed(file: Path, *, activities: int, tickets: int) -> None:
    sizes = ["--activities", str(activities), "--tickets", str(tickets)]
    _run([str(ROOT / "scripts/seed"), str(file), *sizes])


def create_token(file: Path, *scopes: str) -> str:
    """Issue a token by the operator's command."""
    options = [option for scope in scopes for option in ("--scope", scope)]
    command = [_COMMAND, "token", "create", "--name", "bench", "--actor", str(_ACTOR), *options]
    return _run(command, **_settings(file)).strip().splitlines()[-1]


def copy(file: Path, url: str) -> None:
    """Copy a database of the service to another engine, by the operator's command."""
    _run([_COMMAND, "copy", "--to", url], **_settings(file))


def serve(file: Path, workers: int = 1, **settings: str) -> Server:
    """Start the service, with no limit of rates; its other settings are the defaults or given."""
    port = free_port()
    command = [_COMMAND, "serve", "--workers", str(workers)]
    return _start(command, port, **_settings(file, port=str(port), **settings))


def serve_textbook(source: Path, file: Path) -> Server:
    """Start the textbook with the activities of a database of the service."""
    _run([sys.executable, "-m", "benchmark.textbook", str(source), str(file)])
    return _serve_app("benchmark.textbook:app", TEXTBOOK_FILE=str(file))


def serve_ceiling() -> Server:
    return _serve_app("benchmark.ceiling:app")


def _settings(file: Path, **settings: str) -> dict[str, str]:
    rates = dict.fromkeys(("rate_limit_requests", "rate_limit_cost", "rate_limit_failures"), "0")
    values = {"database_url": f"sqlite+aiosqlite:///{file}"} | rates | settings
    return {f"TICKET_ACTIVITY_{name.upper()}": value for name, value in values.items()}


def _serve_app(name: str, **environment: str) -> Server:
    port = free_port()
    quiet = ["--log-level", "critical", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", name, "--port", str(port), *quiet]
    return _start(command, port, **environment)


def _start(command: list[str], port: int, **environment: str) -> Server:
    """Start a server and wait until it accepts connections; its output goes to a file."""
    with TemporaryFile() as output:
        popen = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        if _accepts(popen, port):
            return Server(popen, port)
        popen.kill()
        output.seek(0)
        raise RuntimeError(f"{' '.join(command)} did not start: {output.read().decode()}")


def _accepts(popen: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while popen.poll() is None and time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return done.stdout
