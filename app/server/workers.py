"""Several worker processes on one listening socket, and the process that supervises them.

SIGTERM, SIGINT and SIGQUIT end them all. SIGHUP replaces them one after the other, so that the
service stays reachable. A worker that dies is replaced. A service whose workers do not start, or
keep dying, ends with the reason.
"""

import asyncio
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from app.errors import OperatorError
from app.log_format import configure_log
from app.metrics import Snapshot, lasting, merge
from app.server.errors import CannotServe
from app.server.metrics_page import serve_metrics
from app.server.server import ENDING_SIGNALS, RETIRE, serve_in_this_process
from app.settings import Settings

_log: Final = logging.getLogger("uvicorn.error")
_spawning: Final = multiprocessing.get_context("spawn")

_MAX_DEATHS: Final = 5
_DEATHS_SECONDS: Final = 60
"""The service ends when so many workers have died in so many seconds."""


def serve_in_workers(
    settings: Settings, listener: socket.socket, count: int, on_start: Callable[[], None]
) -> None:
    """Serve until a signal; `on_start` is called once all workers answer. Raises CannotServe."""
    supervisor = _Supervisor(settings, listener)
    serve_metrics(settings, supervisor.measure)
    if reason := asyncio.run(supervisor.run(count, on_start)):
        raise CannotServe(reason)


@dataclass(slots=True, eq=False)
class _Worker:
    """`reports` yields why it did not start, or None, and then what it measures each second."""

    process: SpawnProcess
    reports: Connection
    snapshot: Snapshot = field(default_factory=dict)

    async def start_failure(self) -> str | None:
        """Wait until the worker accepts connections. Return why it did not, if so."""
        await _readable(self.reports.fileno())
        try:
            reason: str | None = self.reports.recv()
        except EOFError:
            await self.ended()
            return self.end
        return reason

    def retire(self) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, RETIRE)

    async def ended(self) -> None:
        await _readable(self.process.sentinel)
        self.process.join()

    @property
    def end(self) -> str:
        """How it ended."""
        status = self.process.exitcode or 0
        if status < 0:
            return f"it was killed by {signal.Signals(-status).name}"
        return f"it ended with the status {status}; the log says why"


@dataclass(slots=True, eq=False)
class _Supervisor:
    settings: Settings
    listener: socket.socket
    _workers: list[_Worker] = field(default_factory=list)
    _reloads: list[asyncio.Event] = field(default_factory=list)
    _reload_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_DEATHS))
    _death_count: int = 0
    _measured: list[_Worker] = field(default_factory=list)
    _past: Snapshot = field(default_factory=dict)  # of workers that have ended
    _is_ending: bool = False

    def measure(self) -> Snapshot:
        """Return what all workers measured, also those that have ended. Called from a thread."""
        deaths: Snapshot = {("ticket_activity_worker_deaths", ()): [self._death_count]}
        return merge([deaths, self._past, *(worker.snapshot for worker in list(self._measured))])

    async def run(self, count: int, on_start: Callable[[], None]) -> str | None:
        """Return when all workers have ended. Return why, if it was not for a signal."""
        loop = asyncio.get_running_loop()
        self._reloads = [asyncio.Event() for _ in range(count)]
        for number in ENDING_SIGNALS:
            loop.add_signal_handler(number, self._end)
        reason = None
        is_on_terminal = sys.stderr.isatty()  # which is gone then
        loop.add_signal_handler(signal.SIGHUP, self._end if is_on_terminal else self._reload)
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = await asyncio.gather(*(self._start() for _ in range(count)))
                if not self._is_ending:
                    on_start()
                for worker, reload in zip(workers, self._reloads, strict=True):
                    tasks.create_task(self._keep(worker, reload))
        except* CannotServe as errors:
            reason = str(_first(errors))
            self._end()
            for worker in self._workers:
                await worker.ended()
        return reason

    def _end(self) -> None:
        # Workers accept the waiting connections when they close the socket. A copy left open here
        # would still take connections, which nobody accepts.
        self.listener.close()
        self._is_ending = True
        for worker in self._workers:
            worker.process.terminate()

    def _reload(self) -> None:
        for reload in self._reloads:
            reload.set()

    async def _keep(self, worker: _Worker, reload: asyncio.Event) -> None:
        """Replace a worker when it dies, and on a reload."""
        while not self._is_ending:
            if await _is_first(worker.ended(), reload.wait()):
                if not self._is_ending:
                    worker = await self._restart(worker, worker.end)
            else:
                reload.clear()
                async with self._reload_lock:
                    worker = await self._replace(worker)
        await worker.ended()

    async def _start(self) -> _Worker:
        worker = self._spawn()
        reason = await worker.start_failure()
        if reason and not self._is_ending:
            raise CannotServe(f"A worker did not start: {reason}.")
        self._follow(worker)
        return worker

    async def _restart(self, worker: _Worker, reason: str) -> _Worker:
        """Return a worker in place of one that died. Raise CannotServe if they keep dying."""
        failure: str | None = reason
        while failure and not self._is_ending:
            _log.error("The worker %s died: %s.", worker.process.pid, failure)
            self._death_count += 1
            self._deaths.append(time.monotonic())
            if len(self._deaths) == _MAX_DEATHS and (
                self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS
            ):
                raise CannotServe(f"{_MAX_DEATHS} workers died in a minute, the last: {failure}.")
            worker = self._spawn()
            failure = await worker.start_failure()
        self._follow(worker)
        return worker

    async def _replace(self, old: _Worker) -> _Worker:
        """End a worker once its successor serves. Keep it if the successor does not start."""
        if self._is_ending:
            return old
        new = self._spawn()
        reason = await new.start_failure()
        if not reason:
            self._follow(new)
            old.retire()
            await old.ended()
            return new
        if not self._is_ending:
            _log.error("A worker did not start, the one before it stays: %s.", reason)
        return old

    def _follow(self, worker: _Worker) -> None:
        """Read what the worker measures, until it ends."""
        self._measured.append(worker)
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.reports.fileno(), self._receive, worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            worker.snapshot = worker.reports.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(worker.reports.fileno())
            worker.reports.close()
            self._past = merge([self._past, lasting(worker.snapshot)])
            self._measured.remove(worker)

    def _spawn(self) -> _Worker:
        reports, report = _spawning.Pipe(duplex=False)
        process = _spawning.Process(target=_run_worker, args=(self.settings, self.listener, report))
        process.start()
        report.close()  # so that the end of the worker ends the pipe
        worker = _Worker(process, reports)
        self._workers = [*filter(_is_alive, self._workers), worker]
        return worker


def _is_alive(worker: _Worker) -> bool:
    return worker.process.is_alive()


def _run_worker(settings: Settings, listener: socket.socket, report: Connection) -> None:
    """Serve, in the process of a worker."""

    is_started = False

    def report_start() -> None:
        nonlocal is_started
        _end_with_parent()
        report.send(None)
        is_started = True

    def report_measured(snapshot: Snapshot) -> None:
        # Not where the supervisor reads nothing: the worker would wait for it.
        if is_started and settings.metrics_port and select.select((), (report,), (), 0)[1]:
            with suppress(OSError):
                report.send(snapshot)

    configure_log(settings)
    try:
        serve_in_this_process(settings, listener, report_start, report_measured)
    except OperatorError as error:
        if is_started:
            _log.error("%s", error)
        else:
            report.send(str(error).removesuffix("."))
        sys.exit(1)


def _end_with_parent() -> None:
    """End as on SIGTERM when the process that started this one is gone."""
    if parent := multiprocessing.parent_process():
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, end)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first error that is no group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _is_first(one: Coroutine[Any, Any, object], other: Coroutine[Any, Any, object]) -> bool:
    """Wait until one of two ends, and cancel the other. Return whether the first one ended."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(descriptor, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(descriptor)
