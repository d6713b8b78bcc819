"""Several worker processes on one listening socket, and the process that supervises them.

SIGTERM and SIGINT end them all. SIGHUP replaces them one after the other, so that the service stays
reachable. A worker that dies is replaced; one that does not start ends the service.
"""

import asyncio
import logging
import multiprocessing
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from app.server.server import ENDING_SIGNALS, serve_in_this_process
from app.settings import Settings

_log: Final = logging.getLogger("uvicorn.error")
_spawning: Final = multiprocessing.get_context("spawn")


class _WorkerFailed(Exception):
    """A worker ended before it served."""


def serve_in_workers(
    settings: Settings, listener: socket.socket, count: int, on_start: Callable[[], None]
) -> bool:
    """Serve until a signal; `on_start` is called once all workers answer.

    Return False when a worker could not start.
    """
    return asyncio.run(_Supervisor(settings, listener).run(count, on_start))


@dataclass(frozen=True, slots=True)
class _Worker:
    process: SpawnProcess
    started: Connection

    async def has_started(self) -> bool:
        """Wait until the worker accepts connections; False when it ended before."""
        await _readable(self.started.fileno())
        try:
            return bool(self.started.recv())
        except EOFError:
            return False

    async def ended(self) -> None:
        await _readable(self.process.sentinel)
        self.process.join()


@dataclass(slots=True, eq=False)
class _Supervisor:
    settings: Settings
    listener: socket.socket
    _workers: list[_Worker] = field(default_factory=list)
    _reloads: list[asyncio.Event] = field(default_factory=list)
    _reload_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_ending: bool = False

    async def run(self, count: int, on_start: Callable[[], None]) -> bool:
        loop = asyncio.get_running_loop()
        self._reloads = [asyncio.Event() for _ in range(count)]
        for number in ENDING_SIGNALS:
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        has_failed = False
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = await asyncio.gather(*(self._start() for _ in range(count)))
                if not self._is_ending:
                    on_start()
                for worker, reload in zip(workers, self._reloads, strict=True):
                    tasks.create_task(self._keep(worker, reload))
        except* _WorkerFailed:
            has_failed = True
            self._end()
            for worker in self._workers:
                await worker.ended()
        return not has_failed

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
                    _log.error("Worker %s died.", worker.process.pid)
                    worker = await self._start()
            else:
                reload.clear()
                async with self._reload_lock:
                    worker = await self._replace(worker)
        await worker.ended()

    async def _start(self) -> _Worker:
        worker = self._spawn()
        if not await worker.has_started() and not self._is_ending:
            raise _WorkerFailed
        return worker

    async def _replace(self, old: _Worker) -> _Worker:
        """End a worker once its successor serves. Keep it if the successor does not start."""
        if self._is_ending:
            return old
        new = self._spawn()
        if await new.has_started():
            old.process.terminate()
            await old.ended()
            return new
        if not self._is_ending:
            _log.error("Worker %s did not start; the one before it stays.", new.process.pid)
        return old

    def _spawn(self) -> _Worker:
        started, report = _spawning.Pipe(duplex=False)
        process = _spawning.Process(target=_run_worker, args=(self.settings, self.listener, report))
        process.start()
        report.close()  # so that the end of the worker ends the pipe
        worker = _Worker(process, started)
        self._workers = [*filter(_is_alive, self._workers), worker]
        return worker


def _is_alive(worker: _Worker) -> bool:
    return worker.process.is_alive()


def _run_worker(settings: Settings, listener: socket.socket, report: Connection) -> None:
    """Serve, in the process of a worker."""

    def report_start() -> None:
        _end_with_parent()
        report.send(True)
        report.close()

    serve_in_this_process(settings, listener, report_start)


def _end_with_parent() -> None:
    """End as on SIGTERM when the process that started this one is gone."""
    if parent := multiprocessing.parent_process():
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(parent.sentinel)
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(parent.sentinel, end)


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
