"""Checks messages and JSON objects. The limits are the same for both APIs and all databases."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, TypeAlias

from app.errors import InvalidInput
from app.json_text import encode_json
from app.numerals import WrittenFloat, is_rounded

_PLACE_LENGTH = 120

MAX_REASON_LENGTH: Final = 1000

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


def check_reason(reason: str) -> None:
    """Raise InvalidInput for the reason of a redaction that is blank, too long or not storable."""
    if not reason.strip():
        raise InvalidInput("reason must not be blank.", path=("reason",))
    if len(reason) > MAX_REASON_LENGTH:
        raise InvalidInput(
            f"reason has {len(reason)} characters; the limit is {MAX_REASON_LENGTH}.",
            path=("reason",),
        )
    if fault := fault_in_text(reason):
        raise InvalidInput(f"reason {fault}.", path=("reason",))


def check_json_object(value: object, limits: InputLimits, name: str) -> None:
    """Raise InvalidInput unless it is a JSON object within the limits; `name` is the argument.

    It stops at the first value beyond a limit, so that very large input takes no more time than
    input just within the limits: this runs on the event loop.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be a JSON object.", path=(name,))
    at_least = 0
    pending: list[_Container] = [((None, name), 1, value)]
    while pending:
        place, depth, container = pending.pop()
        if depth > limits.max_metadata_depth:
            raise InvalidInput(
                f"{name} is nested deeper than {limits.max_metadata_depth} levels.", path=(name,)
            )
        if not container:
            continue
        at_least += _least_size(container)
        if at_least > limits.max_metadata_bytes:
            raise _too_large(limits, name)
        pending += _check_values(place, depth, container, name)
    if len(encode_json(value)) > limits.max_metadata_bytes:
        raise _too_large(limits, name)


# The path of a value: the path of its container, and its key there.
_Place: TypeAlias = "tuple[_Place | None, str | int]"
_Container: TypeAlias = tuple[_Place, int, dict[str, Any] | list[Any]]


def _too_large(limits: InputLimits, name: str) -> InvalidInput:
    return InvalidInput(
        f"{name} takes more than {limits.max_metadata_bytes} bytes as JSON, which is the limit.",
        path=(name,),
    )


def _least_size(container: dict[str, Any] | list[Any]) -> int:
    """Return the least number of bytes that a container takes, without its contents."""
    if isinstance(container, list):
        return 2 * len(container)
    return 5 * len(container) + sum(map(len, container))


def _check_values(
    place: _Place, depth: int, container: dict[str, Any] | list[Any], name: str
) -> list[_Container]:
    """Return the containers in a container.

    Raise InvalidInput for the first value or member name that cannot be stored exactly.
    """
    items: Iterable[tuple[str | int, Any]]
    if isinstance(container, dict):
        for member in container:
            if fault := fault_in_text(member):
                raise InvalidInput(
                    f"{_dotted(place)} has a member whose name {fault}.", path=(name,)
                )
        items = container.items()
    else:
        items = enumerate(container)
    inner: list[_Container] = []
    for key, item in items:
        check = _CHECKS.get(type(item), _fault_in_other)
        if check is None:
            if isinstance(item, dict | list):
                inner.append(((place, key), depth + 1, item))
        elif fault := check(item):
            raise InvalidInput(f"{_dotted((place, key))} {fault}.", path=(name,))
    return inner


def fault_in_text(text: str) -> str | None:
    if "\0" in text:
        return "holds the character NUL (U+0000)"
    if not text.isascii() and _has_surrogate(text):
        return "holds half of a surrogate pair"
    return None


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _fault_in_integer(value: int) -> str | None:
    return None if MIN_INTEGER <= value <= MAX_INTEGER else "is an integer beyond 64 bits"


def _fault_in_float(value: float) -> str | None:
    if not math.isfinite(value):
        return "is not a finite number"
    if is_rounded(value):
        return f"is a number that a 64-bit float cannot hold: it would become {value!r}"
    return None


def _fault_in_other(_value: object) -> str:
    return "is not a JSON value"  # a variable in a GraphQL literal, of a type that is not JSON's


# By exact type, since metadata of the usual limit may hold 32,000 values.
_CHECKS: dict[type, Callable[[Any], str | None] | None] = {
    str: fault_in_text,
    int: _fault_in_integer,
    float: _fault_in_float,
    WrittenFloat: _fault_in_float,
    bool: None,
    NoneType: None,
    dict: None,
    list: None,
}


def _dotted(place: _Place) -> str:
    """Return a path as text for a message. Names come from the client: they are escaped and cut."""
    keys: list[str] = []
    outer: _Place | None = place
    while outer:
        outer, key = outer
        keys.append(ascii(str(key)[:_PLACE_LENGTH])[1:-1])
    text = ".".join(reversed(keys))
    return text if len(text) <= _PLACE_LENGTH else f"{text[: _PLACE_LENGTH - 3]}..."
