"""One process that serves: Uvicorn with our settings, its start and its shutdown."""

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
"""Time for Uvicorn and uvloop to close their listening sockets."""


class Server(uvicorn.Server):
    """Serves until a signal; then finishes requests in progress and those that still arrive.

    `end_streams` ends subscriptions at the shutdown; `on_start` is called once it listens.
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
        """Serve clients that have connected but are not accepted: closing the socket resets them.

        A client that connects in the microseconds after the last accept is still reset.
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
        except OSError:  # no client waits, or another process took it
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
    """Keep the objects loaded so far out of garbage collections, and collect less often.

    Reference counting frees the hundreds of objects of a request. By default every 700 new objects
    start a collection, and every seventieth of these visits all objects of all libraries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
