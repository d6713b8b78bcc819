"""JSON between bytes and values: written by orjson, read by the standard library.

orjson reads an integer beyond 64 bits as a float and does not say whether it rounded a decimal.
Finding out which texts hold such numbers costs more time than it would save on the others.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import orjson

from app.errors import InvalidInput
from app.numerals import parse_decimal


def _refuse_constant(name: str) -> None:
    raise InvalidInput(f"{name} is not JSON.")


_MAX_DECIMALS: Final = 20_000
"""Most decimals in a text. Each is read by a function, which takes the event loop a microsecond.

Metadata within its default limit holds at most 16,384.
"""

_LEAST_DECIMAL: Final = 4
"""The bytes that a decimal takes in an array, with its comma."""


class _TooManyDecimals(Exception):
    """The text holds more decimals than the limit."""


class _DecimalCount:
    """Reads the decimals of one text. Raises _TooManyDecimals."""

    def __init__(self) -> None:
        self._left = _MAX_DECIMALS

    def parse(self, text: str) -> float:
        self._left -= 1
        if self._left < 0:
            raise _TooManyDecimals
        return parse_decimal(text)


def _decoder_of(parse_float: Callable[[str], float]) -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant, parse_float=parse_float)


_short_decoder: Final = _decoder_of(parse_decimal)
# Values come from JSON or are built here, so they hold no reference to themselves.
_encoder: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
_ascii_encoder: Final = json.JSONEncoder(
    allow_nan=False, check_circular=False, separators=(",", ":")
)


def _decoder(length: int) -> json.JSONDecoder:
    is_short = length <= _MAX_DECIMALS * _LEAST_DECIMAL
    return _short_decoder if is_short else _decoder_of(_DecimalCount().parse)


def encode_json(value: object) -> bytes:
    """Return compact JSON in UTF-8. The value must hold no NaN and no Infinity."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_slowly(value)


def encode_json_to_keep(value: object) -> bytes:
    """Return the same JSON in memory of its size: orjson holds at least 4 KiB for each."""
    return bytes(memoryview(encode_json(value)))


def _encode_slowly(value: object) -> bytes:
    """Encode values that orjson refuses: integers beyond 64 bits, and WrittenFloat."""
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate, echoed from the request, has no UTF-8; as an escape it is still JSON.
        return _ascii_encoder.encode(value).encode()


def dump_json(value: object) -> str:
    """Write compact JSON, for the database."""
    return encode_json(value).decode()


def load_json(text: str | bytes) -> Any:
    """Read what `dump_json` wrote."""
    return orjson.loads(text)


def parse_json(text: str | bytes, subject: str) -> object:
    """Parse strict JSON (RFC 8259); `subject` names the text in the InvalidInput raised.

    An integer or a nesting that Python can hold passes: the domain has its own bounds. A decimal
    that a float may have rounded is a WrittenFloat.
    """
    try:
        return _decoder(len(text)).decode(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{subject} is not valid UTF-8 at byte {error.start}.") from None
    except InvalidInput as error:
        raise InvalidInput(f"{subject} is not valid JSON: {error.message}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidInput(f"{subject} is not valid JSON: {error.msg} at {where}.") from None
    except _TooManyDecimals:
        raise InvalidInput(
            f"{subject} is not accepted: it holds more than {_MAX_DECIMALS} decimal numbers."
        ) from None
    except RecursionError:
        raise InvalidInput(f"{subject} is not accepted: it is nested too deeply.") from None
    except ValueError:  # int() refuses thousands of digits (CVE-2020-10735)
        raise InvalidInput(f"{subject} is not accepted: an integer has too many digits.") from None
