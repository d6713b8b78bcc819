"""A Redis for the tests: Debian's, started here on a free port with a folder of its own."""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = shutil.which("redis-server") or shutil.which("valkey-server")


@dataclass(slots=True, eq=False)
class RedisServer:
    """A server process of ours, which tests may end, stop and start again."""

    folder: Path
    port: int
    options: Sequence[str]
    popen: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert COMMAND
        own = {"--port": str(self.port), "--bind": "127.0.0.1", "--dir": str(self.folder)}
        words = [word for option in own.items() for word in option]
        self.popen = subprocess.Popen(
            [COMMAND, *self.options, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._answers():
            assert self.popen.poll() is None, "the server ended"

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait(timeout=30)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def running_redis(options: Sequence[str] = ("--save", "")) -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="ticket-activity-redis-"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = RedisServer(folder, taken.getsockname()[1], options)
    server.start()
    try:
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)
