"""One process that serves: Uvicorn by our settings, and how it begins and ends."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from app.main import create_app
from app.server.protocol import HttpProtocol, ServerConfig
from app.settings import Settings

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_CLOSING_SECONDS: Final = 0.02
"""Enough turns of the loop for Uvicorn and uvloop to close what listens."""


class Server(uvicorn.Server):
    """Serves until a signal, then answers what is under way and what arrives meanwhile.

    `end_streams` ends what would otherwise never end; `on_start` is called once it listens.
    """

    config: ServerConfig

    def __init__(
        self,
        config: ServerConfig,
        end_streams: Callable[[], None],
        on_start: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.end_streams = end_streams
        self.on_start = on_start

    def take_signals(self) -> None:
        """Let SIGINT and SIGTERM end the server, also when they come before it runs."""
        for number in ENDING_SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the handlers alone: Uvicorn's own ones miss a signal that came before them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, then end every connection as its protocol does."""
        self.end_streams()
        copies = [listener.dup() for listener in sockets or ()]
        accepting = asyncio.create_task(self._accept_waiting(copies))
        await super().shutdown(sockets)
        await accepting

    async def _accept_waiting(self, listeners: list[socket.socket]) -> None:
        """Serve who has connected but was not accepted yet: closing the last copy resets them.

        A client that connects between the last accept and the close, microseconds, still is.
        """
        await asyncio.sleep(_CLOSING_SECONDS)
        accepted = []
        for listener in listeners:
            with listener:
                accepted += _accept_all(listener)
        for connection in accepted:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                self._create_protocol, connection
            )
            protocol.shutdown()

    def _create_protocol(self) -> HttpProtocol:
        return HttpProtocol(self.config, self.server_state, self.lifespan.state)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    listener.setblocking(False)
    while True:
        try:
            connection, _address = listener.accept()
        except OSError:  # nobody waits, or another process was quicker
            return accepted
        accepted.append(connection)


def serve_in_this_process(
    settings: Settings, listener: socket.socket, on_start: Callable[[], None]
) -> None:
    """Serve until a signal; `on_start` is called once the service answers."""
    app = create_app(settings)
    server = Server(ServerConfig(app, settings), app.state.end_streams, on_start)
    server.take_signals()
    _calm_garbage_collection()
    server.run([listener])


def _calm_garbage_collection() -> None:
    """Leave what lives as long as the process out of collections, and collect less often.

    A request makes hundreds of objects that reference counting frees; by default every 700 of them
    begin a collection, and every seventieth walks through all that the libraries have loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
