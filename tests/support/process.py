"""The service as a process of its own, started by the command README.md names."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Process:
    """A server that has printed how to use it, and so accepts connections."""

    popen: "subprocess.Popen[str]"
    hints: str

    @classmethod
    def start(cls, command: Sequence[str | Path], **options: Any) -> Self:
        """Run a command that serves with the demo, and wait until it has printed what to paste."""
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options
        )
        assert popen.stdout
        hints = ""
        for line in popen.stdout:
            hints += line
            if hints.endswith("}}'\n\n"):
                return cls(popen, hints)
        popen.stdout.close()
        raise AssertionError(f"the service ended with {popen.wait()}: {hints}")

    @property
    def origin(self) -> str:
        return self._found(r"(https?://[^/]+)/graphql#")

    @property
    def token(self) -> str:
        """The token that may do everything."""
        return self._found(r"#token=(\S+)")

    @property
    def token_without_private(self) -> str:
        return self._found(r"sees no private entries.*\n.*#token=(\S+)")

    @property
    def curls(self) -> list[str]:
        """The commands to paste."""
        return [
            block.strip()
            for block in re.findall(r"^  (curl .*?)\n\n", self.hints, re.DOTALL | re.MULTILINE)
        ]

    def _found(self, pattern: str) -> str:
        found = re.search(pattern, self.hints)
        assert found, self.hints
        return found[1]

    @property
    def workers(self) -> set[int]:
        """The processes started by the service that serve."""
        listed = subprocess.run(
            ["ps", "-ww", "--ppid", str(self.popen.pid), "-o", "pid=,args="],
            capture_output=True,
            text=True,
            check=False,  # there may be none
        ).stdout
        return {int(pid) for pid in re.findall(r"^\s*(\d+) .*spawn_main", listed, re.MULTILINE)}

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        if self.popen.poll() is None:
            self.end(signal.SIGTERM)
        if self.popen.stdout:
            self.popen.stdout.close()


def environment(database: Path | str, **settings: str) -> dict[str, str]:
    """Return the environment of a process on a database: a file of SQLite, or an address."""
    url = f"sqlite+aiosqlite:///{database}" if isinstance(database, Path) else database
    return os.environ | {
        "TICKET_ACTIVITY_DATABASE_URL": url,
        "TICKET_ACTIVITY_PORT": "0",
        **{f"TICKET_ACTIVITY_{name.upper()}": value for name, value in settings.items()},
    }


def passing(listener: socket.socket) -> list[str]:
    """Return a command that runs another one as systemd does, with the socket as descriptor 3."""
    script = (
        f"import os, sys; os.dup2({listener.fileno()}, 3); "
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}; "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", script]


def token(database: Path | str, *scopes: str) -> str:
    """Issue a token to a new actor by the operator's command."""
    options = [option for scope in scopes for option in ("--scope", scope)]
    command = [str(ROOT / ".venv/bin/ticket-activity"), "token", "create", "--name", "test"]
    created: subprocess.CompletedProcess[str] = subprocess.run(
        [*command, "--actor", str(uuid4()), *options],
        env=environment(database),
        capture_output=True,
        text=True,
        check=True,
    )
    return created.stdout.strip()


def serve(
    database: Path | str,
    workers: int = 1,
    *,
    within: Sequence[str] = (),
    log: Path | None = None,
    pass_fds: Sequence[int] = (),
    **settings: str,
) -> Process:
    """Run `./scripts/serve` on a free port and wait until it has printed what to paste.

    `within` is a command that runs another one. `log` is a file for what it prints of itself.
    """
    with (log or Path(os.devnull)).open("a") as errors:
        return Process.start(
            [*within, ROOT / "scripts" / "serve", "--workers", str(workers)],
            env=environment(database, **settings),
            stderr=errors if log else None,
            pass_fds=pass_fds,
        )
