"""Writes lines to a file descriptor in a thread, so that nobody waits for whoever reads them."""

import os
import select
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final

_END: Final = b"\n"


class LineWriter:
    """Keeps up to `max_bytes` of lines that cannot be written yet; further ones it drops.

    What cannot be written at all, as on a full disk, is dropped too. `tell_dropped` returns the
    line that says how many were; it follows the lines before the gap.
    """

    def __init__(self, descriptor: int, tell_dropped: Callable[[int], bytes]) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._max_bytes = 0
        self._changed = Condition()
        self._waiting = bytearray()
        self._untold = 0
        self._is_writing = False
        self._is_stuck = False
        self._is_torn = False
        self._thread: Thread | None = None

    def start(self, max_bytes: int) -> None:
        """Begin to write. As many bytes again may be in memory while they are written."""
        self._max_bytes = max_bytes
        if self._thread is None:
            self._thread = Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def write(self, lines: bytes | bytearray) -> None:
        """Take whole lines. Returns at once."""
        with self._changed:
            if len(self._waiting) + len(lines) > self._max_bytes:
                self._drop(lines)
            else:
                self._waiting += lines
                self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, but not longer. Return whether more can be written.

        Where that was in vain, the next call does not wait.
        """
        patience = 0 if self._is_stuck else seconds
        with self._changed:
            is_done = self._changed.wait_for(
                lambda: not (self._waiting or self._is_writing), patience
            )
        is_done = is_done and bool(select.select((), (self._descriptor,), (), patience)[1])
        self._is_stuck = not is_done
        return is_done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                lines, self._waiting = self._waiting, bytearray()
                dropped, self._untold = self._untold, 0
                self._is_writing = True
            if dropped:
                lines += self._tell_dropped(dropped)
            self._write_all(lines)

    def _write_all(self, lines: bytearray) -> None:
        if self._is_torn:
            lines[:0] = _END
        while lines:
            try:
                size = os.write(self._descriptor, lines[: _whole_lines(lines)])
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                select.select((), (self._descriptor,), ())
            except OSError:
                with self._changed:
                    self._drop(lines.removeprefix(_END))  # what it would have ended is written
                return
            else:
                self._is_torn = not lines.endswith(_END, 0, size)
                del lines[:size]

    def _drop(self, lines: bytes | bytearray) -> None:
        count = lines.count(b"\n")
        self.dropped += count
        self._untold += count


def _whole_lines(lines: bytearray) -> int:
    """Return the length of as many lines as other processes cannot write theirs between.

    Up to PIPE_BUF bytes are written to a pipe at once; a longer line can be torn.
    """
    end = lines.rfind(b"\n", 0, select.PIPE_BUF) + 1
    return end or lines.find(b"\n") + 1 or len(lines)
