"""Keeps long reads from holding up others."""

import time
from typing import Final

_WORK_SECONDS: Final = 0.001
"""A long read works for so long before it looks whether it competes with others."""

_COMPETING: Final = 1.2
"""Elapsed time for each second of processor time from which on a thread competes with others."""

_REST: Final = 3
"""A long read that competes rests so many times as long as it has worked."""


class Courtesy:
    """Keeps a long read from taking the processor and the interpreter lock from the event loop.

    A long read that competes with others for them rests, so that it takes a quarter of the time;
    one that has them to itself does not.
    """

    __slots__ = ("_began", "_cpu")

    def __init__(self) -> None:
        self._began = self._cpu = 0.0

    def begin(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.thread_time()

    def rest(self) -> None:
        """Rest, if others have used the processor or the lock since the last rest."""
        used = time.thread_time() - self._cpu
        if used < _WORK_SECONDS:
            return
        if time.perf_counter() - self._began > _COMPETING * used:
            time.sleep(_REST * used)
        self.begin()
