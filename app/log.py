"""The log on standard error: one event a line, as JSON, or readable on a terminal.

Requests and writes are most of the lines, and cost the time of those who wait. So they are encoded
directly and written together, at most a tenth of a second later. All other lines come through
`logging`, Uvicorn's too. A thread writes them all: where nobody reads standard error, a write to it
never ends. No line holds a message, metadata, a token or the query of a URL.
"""

import asyncio
import atexit
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, Protocol

import orjson
import structlog
from structlog.typing import Processor

from app.line_writer import LineWriter

LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

_FLUSH_SECONDS: Final = 0.1
_MAX_TOGETHER_BYTES: Final = 32 * 1024
_MAX_END_SECONDS: Final = 1.0
_STDERR: Final = 2
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

_EXTRAS: Final = ["request_id"]
"""What a call of `logging` may give as `extra` to be a member of the line."""

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


class LogSettings(Protocol):
    @property
    def log_format(self) -> LogFormat: ...
    @property
    def log_level(self) -> LogLevel: ...
    @property
    def log_requests(self) -> bool: ...
    @property
    def log_writes(self) -> bool: ...
    @property
    def log_buffer_bytes(self) -> int: ...


class LogHandler(logging.Handler):
    """Writes each record as one line of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            events.output.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


def configure_log(settings: LogSettings) -> None:
    """Send all lines of this process to standard error."""
    form = settings.log_format
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = LogHandler()
    handler.setFormatter(_text_formatter() if is_text else _json_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it says three lines at every start
    is_info = root.isEnabledFor(logging.INFO)
    events.begin(
        _encode_text if is_text else _encode_json,
        has_requests=settings.log_requests and is_info,
        has_writes=settings.log_writes and is_info,
    )
    events.output.start(settings.log_buffer_bytes)
    atexit.register(flush_log)


def flush_log() -> bool:
    """Write what waits, for a second. Return False where nobody reads standard error."""
    events.flush()
    return events.output.flush(_MAX_END_SECONDS)


def _encode_json(event: Event) -> bytes:
    # asyncpg's UUID is a class of its own, which orjson refuses.
    return orjson.dumps(event, default=str, option=_OPTIONS)


def _encode_text(event: Event) -> bytes:
    known = {name: str(value) for name, value in event.items() if value is not None}
    known["time"] = f"{event['time']:%H:%M:%S}"
    return f"{_console()(None, '', known)}\n".encode()


@cache
def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), timestamp_key="time", pad_event_to=8
    )


def _before() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(_EXTRAS),
    ]


def _json_formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.processors.TimeStamper("iso", key="time"), *_before()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_dump),
        ],
    )


def _text_formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper("%H:%M:%S", utc=True, key="time"),
            *_before(),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _console()],
    )


def _dump(event: Event, **_options: Any) -> str:
    return orjson.dumps(event, default=str).decode()
