"""What a text and a JSON object may hold, the same through every door and on every database."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.activity.values import dump_json
from app.errors import InvalidInput
from app.numerals import is_rounded

Location = tuple[str | int, ...]

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The settings of the same names."""

    max_message_length: int
    max_metadata_bytes: int
    max_metadata_depth: int


def check_message(message: object, limits: InputLimits) -> None:
    """Raise InvalidInput unless it is null or a text that every engine stores as it is."""
    if message is None:
        return
    if not isinstance(message, str):
        raise InvalidInput("message must be a string or null.", path=("message",))
    if len(message) > limits.max_message_length:
        raise InvalidInput(
            f"message has {len(message)} characters; the limit is {limits.max_message_length}.",
            path=("message",),
        )
    if fault := fault_in_text(message):
        raise InvalidInput(f"message {fault}.", path=("message",))


def check_json_object(value: object, limits: InputLimits, name: str) -> None:
    """Raise InvalidInput unless it is a JSON object within the limits; `name` is the argument."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be a JSON object.", path=(name,))
    for location, depth, item in _walk((name,), value):
        if depth > limits.max_metadata_depth:
            raise InvalidInput(
                f"{name} is nested deeper than {limits.max_metadata_depth} levels.", path=(name,)
            )
        if fault := _fault_in(item):
            raise InvalidInput(f"{_dotted(location)} {fault}.", path=(name,))
    size = len(dump_json(value).encode())
    if size > limits.max_metadata_bytes:
        raise InvalidInput(
            f"{name} takes {size} bytes as JSON; the limit is {limits.max_metadata_bytes}.",
            path=(name,),
        )


def _walk(location: Location, value: Any) -> Iterator[tuple[Location, int, Any]]:
    """Yield every value and every member name, with the depth of the container around it."""
    pending = [(location, 0, value)]
    while pending:
        location, depth, value = pending.pop()
        yield location, depth + isinstance(value, dict | list), value
        if isinstance(value, dict):
            yield from ((location, depth, name) for name in value)
            pending += [((*location, name), depth + 1, item) for name, item in value.items()]
        elif isinstance(value, list):
            pending += [((*location, i), depth + 1, item) for i, item in enumerate(value)]


def _fault_in(value: object) -> str | None:
    match value:
        case str():
            return fault_in_text(value)
        case bool():
            return None
        case int() if not MIN_INTEGER <= value <= MAX_INTEGER:
            return "is an integer beyond 64 bits"
        case float() if not math.isfinite(value):
            return "is not a finite number"
        case float() if is_rounded(value):
            return f"is a number that a 64-bit float cannot hold: it would become {value!r}"
    return None


def fault_in_text(text: str) -> str | None:
    if "\0" in text:
        return "holds the character NUL (U+0000)"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half of a surrogate pair"
    return None


def _dotted(location: Location) -> str:
    """Write a path for a message. A name may hold anything: it is escaped and cut."""
    text = ".".join(ascii(str(part))[1:-1] for part in location)
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
