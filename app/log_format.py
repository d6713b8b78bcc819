"""The log on standard error: one event a line, as JSON, or readable on a terminal.

It has the lines of `app/log.py` and those of `logging`, Uvicorn's too.
"""

import atexit
import logging
import sys
from functools import cache
from typing import Any, Final

import orjson
import structlog
from structlog.typing import Processor

from app.log import Event, events, flush_log
from app.settings import Settings

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

_EXTRAS: Final = ["request_id"]
"""What a call of `logging` may give as `extra` to be a member of the line."""


class LogHandler(logging.Handler):
    """Writes each record as one line of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            events.output.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


def configure_log(settings: Settings) -> None:
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
