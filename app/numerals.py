"""Decimal numbers as JSON and GraphQL write them, read so that rounding can be noticed.

`float` rounds without saying so: `1e-400` becomes 0.0, and a twentieth digit is lost. A caller that
must return exactly the number that was sent asks `is_rounded`; for all others the value is a float.
"""

from decimal import Decimal, InvalidOperation
from typing import Final

_EXACT_LENGTH: Final = 16
"""A text of this length without an exponent has at most 15 digits, which a float keeps exactly."""


class WrittenFloat(float):
    """A float with the `text` it was read from. The float may be rounded; the text is exact."""

    __slots__ = ("text",)
    text: str


def parse_decimal(text: str) -> float:
    """Return the number; a WrittenFloat where it may have been rounded.

    Runs for every decimal of every request, so it leaves the comparison to `is_rounded`.
    """
    if len(text) <= _EXACT_LENGTH and "e" not in text and "E" not in text:
        return float(text)
    value = WrittenFloat(text)
    value.text = text
    return value


def is_rounded(value: float) -> bool:
    """Return whether writing the value as JSON gives another number than it was read from."""
    if not isinstance(value, WrittenFloat):
        return False
    try:
        return Decimal(value.text) != Decimal(repr(value))
    except InvalidOperation:  # an exponent of more than eighteen digits
        return True
