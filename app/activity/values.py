"""Reads and writes UUIDs, times and JSON as the contract has them: strict in, canonical out."""

import json
import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from app.errors import InvalidInput

JSONObject = dict[str, Any]

UUID_PATTERN = (
    "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
_UUID = re.compile(UUID_PATTERN.removeprefix("^").removesuffix("$"))

_UUID_LENGTH = 36

_DATETIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_EXCERPT_LENGTH = 80


def parse_uuid(value: object, *path: str) -> UUID:
    """Read a UUID that matches the contract's pattern; uppercase is fine, other spellings are not.

    Raises InvalidInput at `path`.
    """
    if isinstance(value, str) and len(value) == _UUID_LENGTH and (found := _uuid(value)):
        return found
    raise InvalidInput(
        f"{'.'.join(path) or 'The value'} must be a UUID in canonical form, "
        f"such as 0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e; got {_excerpt(value)}.",
        path=path,
    )


@lru_cache(maxsize=4096)
def _uuid(text: str) -> UUID | None:
    """Return the UUID in the contract's form, or None. Clients send the same ones often."""
    return UUID(text) if _UUID.fullmatch(text) else None


def generate_uuid7(now: datetime) -> UUID:
    """Make a UUIDv7 (RFC 9562 section 5.7): 48 bits of milliseconds, then 74 random bits."""
    bits = to_milliseconds(now) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=bits)


def utc_now() -> datetime:
    """Return the current time in UTC, cut to the millisecond, which is what the database stores."""
    return from_milliseconds(time.time_ns() // 1_000_000)


def truncate_to_milliseconds(value: datetime) -> datetime:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def to_milliseconds(value: datetime) -> int:
    return (value - EPOCH) // MILLISECOND


def from_milliseconds(value: int) -> datetime:
    return EPOCH + value * MILLISECOND


def parse_datetime(value: object, *path: str) -> datetime:
    """Read an RFC 3339 date-time with any offset as UTC; below the millisecond it is cut off.

    Raises InvalidInput at `path`.
    """
    if isinstance(value, str) and _DATETIME.fullmatch(value):
        try:
            return truncate_to_milliseconds(datetime.fromisoformat(value.upper()).astimezone(UTC))
        except (ValueError, OverflowError):
            pass
    raise InvalidInput(
        f"{'.'.join(path) or 'The value'} must be an RFC 3339 date-time, "
        f"such as 2026-11-23T15:07:05.514Z; got {_excerpt(value)}.",
        path=path,
    )


def format_datetime(value: datetime) -> str:
    return f"{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def is_same_json(one: object, other: object) -> bool:
    """Compare two JSON values. Member order is ignored; true, 1 and 1.0 differ."""
    return one == other and canonical_json(one) == canonical_json(other)


def canonical_json(value: object) -> str:
    """Return one text for all JSON values that `is_same_json` takes for the same."""
    return json.dumps(value, sort_keys=True)


def _excerpt(value: object) -> str:
    """Quote a value for a message, cut to a few characters: it may be as long as a body."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value[:_EXCERPT_LENGTH] if isinstance(value, str) else value)
    return text if len(text) <= _EXCERPT_LENGTH else f"{text[: _EXCERPT_LENGTH - 3]}..."
