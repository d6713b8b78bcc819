"""One process that serves: Uvicorn with our settings, its start and its shutdown."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import uvicorn

from app.log import flush_log
from app.main import create_app
from app.metrics import Snapshot
from app.server.errors import CannotServe
from app.server.metrics_page import serve_metrics
from app.server.protocol import HttpProtocol, ServerConfig
from app.settings import Settings

_log: Final = logging.getLogger("uvicorn.error")

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

RETIRE: Final = signal.SIGUSR1
"""Ends a process whose successor serves already: at once, without the delay of a shutdown."""

_WARNING_SECONDS: Final = 60
"""Time between two warnings that there are no file descriptors left."""

_TICK_SECONDS: Final = 0.1
_TICKS_A_SECOND: Final = 10

_SWITCH_SECONDS: Final = 0.001
"""How long the event loop may have to wait for the interpreter lock that another thread holds."""

_CLOSING_SECONDS: Final = 0.02
"""Time for Uvicorn and uvloop to close their listening sockets."""


class Server(uvicorn.Server):
    """Serves until a signal; then finishes requests in progress and those that still arrive.

    `on_end` is called when it is told to end, `end_streams` ends subscriptions when it stops to
    listen, and `on_start` is called once it listens.
    """

    config: ServerConfig

    def __init__(
        self,
        config: ServerConfig,
        on_end: Callable[[], None],
        end_streams: Callable[[], None],
        on_start: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.on_end = on_end
        self.end_streams = end_streams
        self.on_start = on_start
        self.on_second: Callable[[], None] = _nothing
        self.is_reloading = False
        self._kept: socket.socket | None = None
        self._ends_at = 0.0
        self._warned_at = -float(_WARNING_SECONDS)

    def take_signals(self) -> None:
        """Handle signals from now on, also those that come before it runs."""
        for number in (*ENDING_SIGNALS, RETIRE):
            signal.signal(number, self.handle_exit)

    def take_reloads(self) -> None:
        """Let SIGHUP end the server for a reload. On a terminal it means that this one is gone."""
        is_on_terminal = sys.stderr.isatty()
        signal.signal(signal.SIGHUP, self.handle_exit if is_on_terminal else self._handle_reload)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, after the delay if there is one. The next signal ends the delay."""
        is_first = not self.should_exit
        super().handle_exit(sig, frame)
        self.is_reloading = False
        delay = self.config.shutdown_delay_seconds if is_first and sig != RETIRE else 0
        self._ends_at = time.monotonic() + delay
        self.on_end()

    def _handle_reload(self, _sig: int, _frame: FrameType | None) -> None:
        if not self.should_exit:
            self.is_reloading = self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end. Called ten times a second."""
        self._warn_of_descriptors()
        if counter % _TICKS_A_SECOND == 0:
            self.on_second()
        return await super().on_tick(counter) or self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether a part that must run as long as the service, such as the writer, has ended."""
        return bool(self.lifespan.error_occurred)

    def _warn_of_descriptors(self) -> None:
        """Say once that no file can be opened. uvloop closes new connections without a word."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            if time.monotonic() - self._warned_at >= _WARNING_SECONDS:
                limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                _log.error(
                    "All %d file descriptors are in use: new connections are closed at once until "
                    "others end. README.md says which limit so many clients need.",
                    limit,
                )
            self._warned_at = time.monotonic()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the handlers alone: Uvicorn's own ones miss a signal that came before them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait out the delay, stop listening, then end every connection as its protocol does.

        On a reload those who connect wait for the next image of this process.
        """
        while time.monotonic() < self._ends_at:
            await self.on_tick(0)  # which keeps the header Date current
            await asyncio.sleep(_TICK_SECONDS)
        self.end_streams()
        if not self.is_reloading and self._kept:
            self._kept.close()
        copies = [] if self.is_reloading else [listener.dup() for listener in sockets or ()]
        accepting = asyncio.create_task(self._accept_waiting(copies))
        await super().shutdown(sockets)
        await accepting

    def run_keeping(self, listener: socket.socket) -> socket.socket | None:
        """Run. Return the socket if it ended for a reload; else nothing holds it any longer."""
        self._kept = listener.dup()
        self.run([listener])
        if self.is_reloading:
            return self._kept
        self._kept.close()
        return None

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
                self._create_protocol, connection, ssl=self.config.ssl
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
    settings: Settings,
    listener: socket.socket,
    on_start: Callable[[], None],
    report: Callable[[Snapshot], None] | None = None,
) -> socket.socket | None:
    """Serve until a signal; `on_start` is called once the service answers.

    A worker gives `report`, which takes what it measures, each second and at the end.

    Return the socket for the next image of this process, where the signal asks for a reload.
    Raises CannotServe.
    """
    app = create_app(settings)
    state = app.state
    server = Server(ServerConfig(app, settings), state.health.end, state.end_streams, on_start)
    server.take_signals()
    if report:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor handles it
        server.on_second = lambda: report(state.measure())
    else:
        server.take_reloads()
        serve_metrics(settings, state.measure)
    _calm_garbage_collection()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        kept = server.run_keeping(listener)
    finally:
        flush_log()
        server.on_second()
    if server.has_failed:
        raise CannotServe("A part of the service failed; the lines above say which.")
    return kept


def _nothing() -> None:
    """Stand for a function that was not given."""


def _calm_garbage_collection() -> None:
    """Keep the objects loaded so far out of garbage collections, and collect less often.

    Reference counting frees the hundreds of objects of a request. By default every 700 new objects
    start a collection, and every seventieth of these visits all objects of all libraries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
