"""Waits for coroutines together, as graphql-core does, and leaves none of them unawaited."""

import asyncio
from collections.abc import Iterable
from inspect import CORO_CREATED, getcoroutinestate
from types import CoroutineType
from typing import Any


async def gather(coroutines: Iterable[Any]) -> list[Any]:
    """Return the results in order. Once one fails, cancel the others, and raise its error.

    Those that have not begun when the caller is cancelled are cancelled too, and the coroutines
    that they were given are closed: Python would warn that they were never awaited.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        (await _Ended(tasks)).result()
    except Exception:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return [task.result() for task in tasks]


class _Ended(asyncio.Future["asyncio.Task[Any]"]):
    """The first task that fails, or the last one. To cancel it is to cancel all tasks."""

    def __init__(self, tasks: "list[asyncio.Task[Any]]") -> None:
        super().__init__()
        self._tasks = tasks
        self._left = len(tasks)
        self._is_cancelled = False
        for task in tasks:
            task.add_done_callback(self._note_end)

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        for task in self._tasks:
            _close_given(task.get_coro())
            self._is_cancelled |= task.cancel(msg)
        return self._is_cancelled

    def _note_end(self, task: "asyncio.Task[Any]") -> None:
        self._left -= 1
        failed = task.cancelled() or task.exception() is not None
        if self.done() or (self._left and not failed):
            return
        if self._is_cancelled and not failed:
            self.set_exception(asyncio.CancelledError())
        else:
            self.set_result(task)


def _close_given(coroutine: Any) -> None:
    """Close the coroutines that one which has not begun was given, also in a container."""
    if getcoroutinestate(coroutine) != CORO_CREATED:
        return
    for value in coroutine.cr_frame.f_locals.values():
        for given in _values(value):
            if type(given) is CoroutineType:
                _close_given(given)
                given.close()


def _values(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return list(value.values())
    return value if type(value) is list else (value,)
