"""The lines of requests and writes, which are most of the log.

They cost the time of those who wait. So they are encoded directly and written together, at most a
tenth of a second later. All other lines come through `logging` (`app/log_format.py`). A thread
writes them all: where nobody reads standard error, a write to it never ends. No line holds a
message, metadata, a token or the query of a URL.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from app.line_writer import LineWriter

_FLUSH_SECONDS: Final = 0.1
_MAX_TOGETHER_BYTES: Final = 32 * 1024
_MAX_END_SECONDS: Final = 1.0
_STDERR: Final = 2

Event = dict[str, Any]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class EventLog:
    """The lines of requests and writes. Until `begin` there are none."""

    has_requests: bool = False
    has_writes: bool = False
    output: LineWriter = field(init=False)
    _encode: Callable[[Event], bytes] = lambda _event: b""
    _waiting: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.output = LineWriter(_STDERR, self._dropped_line)

    def begin(
        self, encode: Callable[[Event], bytes], *, has_requests: bool, has_writes: bool
    ) -> None:
        self._encode = encode
        self.has_requests, self.has_writes = has_requests, has_writes

    def add(self, event: Event) -> None:
        """Write an event, whose first members are `time`, `level` and `event`.

        Whoever ends the event loop calls `flush`.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        # One growing text: hundreds of lines kept one by one take three times as long.
        self._waiting += self._encode(event)
        if len(self._waiting) >= _MAX_TOGETHER_BYTES:
            self.flush()

    def flush(self) -> None:
        text, self._waiting = self._waiting, bytearray()
        self.output.write(text)

    def _dropped_line(self, count: int) -> bytes:
        event = f"{count} lines of the log were dropped: they could not be written in time."
        return self._encode({"time": now(), "level": "warning", "event": event, "dropped": count})


events: Final = EventLog()


def flush_log() -> bool:
    """Write what waits, for a second. Return False where nobody reads standard error."""
    events.flush()
    return events.output.flush(_MAX_END_SECONDS)
