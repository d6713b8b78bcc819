"""Reads JSON bodies and negotiates content types, for GraphQL and REST.

It knows requests, responses and the error family, but neither GraphQL nor tickets.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from app.errors import (
    InvalidInput,
    PayloadTooLarge,
    UnsupportedMediaType,
)

JSON = "application/json"


# The body


REQUEST_BODY = "Request body"
"""What errors call it."""


async def read_json_text(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Read a body that should be JSON.

    A byte order mark before it is ignored, as RFC 8259 section 8.1 lets a recipient do.
    Raises UnsupportedMediaType and PayloadTooLarge, and ClientDisconnect when there is nobody left
    to answer (`app.middleware` ends such a request silently).
    """
    if not _is_json(", ".join(header_values(scope, b"content-type"))):
        raise UnsupportedMediaType(
            "The body must be JSON in UTF-8: send one header Content-Type: application/json.",
            headers={"Accept": JSON},
        )
    if codings := header_values(scope, b"content-encoding"):
        _require_no_coding(codings)
    declared = header_value(scope, b"content-length")
    if declared and declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = await _read_body(receive, max_bytes)
    return body.removeprefix(BOM_UTF8)


def _require_no_coding(values: list[str]) -> None:
    """Refuse a body that is compressed (RFC 9110 sections 8.4 and 15.5.16)."""
    codings = [coding.strip() for value in values for coding in value.split(",")]
    if named := [coding for coding in codings if coding.lower() not in ("", "identity")]:
        raise UnsupportedMediaType(
            f"The body must be sent as it is, without the content encoding {', '.join(named)}.",
            headers={"Accept-Encoding": "identity"},
        )


@lru_cache(maxsize=64)  # the header is the client's: few entries, each within the header bound
def _is_json(content_type: str) -> bool:
    """Return whether there is one content type and it is JSON in UTF-8.

    Parameters other than the charset are ignored, as RFC 8259 section 11 and RFC 9110 section
    5.6.6 let a recipient do. A list such as `application/json, text/plain` is refused: what is
    read as JSON here must not be a type that a browser sends to other origins without a preflight.
    """
    media_type, semicolon, rest = content_type.partition(";")
    parameters = _parameters(semicolon + rest)
    return media_type.strip().lower() == JSON and parameters is not None and _is_utf8(parameters)


_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(
    rf';[ \t]*(?:(?P<name>{_TCHARS})=(?P<value>{_TCHARS}|"(?:[^"\\]|\\.)*"))?[ \t]*'
)


def _parameters(text: str) -> list[tuple[str, str]] | None:
    """Return the media type parameters in `; a=b; c="d"`, or None if the text is malformed.

    Names and values are in lower case, values without quotes (RFC 9110 section 5.6.6).
    """
    parameters = []
    position = 0
    while position < len(text):
        if not (found := _PARAMETER.match(text, position)):
            return None
        position = found.end()
        if name := found["name"]:
            parameters.append((name.lower(), found["value"].strip('"').lower()))
    return parameters


def _is_utf8(parameters: Iterable[tuple[str, str]]) -> bool:
    """Return whether the media type parameters name no other charset than UTF-8."""
    return all(value in ("utf-8", "utf8") for name, value in parameters if name == "charset")


async def _read_body(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        size += len(body)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join((*parts, body)) if parts else body
        parts.append(body)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {max_bytes} bytes.")


# Content negotiation

_WEIGHT = re.compile(r"(?:0(?:\.\d*)?|1(?:\.0*)?)\Z")


@lru_cache(maxsize=64)  # the header is the client's: few entries, each within the header bound
def preferred_type(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """Choose the offered media type that an Accept header likes best (RFC 9110 section 12.5.1).

    The weight decides, then how specific the range is, then the order in the header, then the
    order offered. Without a header the first one offered is taken; None means not acceptable.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = list(_media_ranges(accept))
    ranked = [
        (rank, -index, media_type)
        for index, media_type in enumerate(offered)
        if (rank := _rank(media_type, ranges))
    ]
    return max(ranked)[2] if ranked else None


def _media_ranges(accept: str) -> Iterable[tuple[str, float]]:
    """Yield each range with its weight, except those that cannot match a type offered here."""
    for item in accept.split(","):
        media_range, _, rest = item.partition(";")
        weight = "1"
        others = []
        for parameter in rest.split(";") if rest else ():
            name, _, value = parameter.strip().lower().partition("=")
            if name == "q":
                weight = value
            elif name:
                others.append((name, value.strip('"')))
        # A range with a parameter that our types lack names other types (RFC 9110 section 12.5.1).
        is_ours = all(name == "charset" for name, _ in others) and _is_utf8(others)
        if _WEIGHT.match(weight) and is_ours:
            yield media_range.strip().lower(), float(weight)


def _rank(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int] | None:
    """Return (weight, specificity, earliness) of the most specific range that matches."""
    matching = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    found = [
        (matching.index(media_range), -position, weight)
        for position, (media_range, weight) in enumerate(ranges)
        if media_range in matching
    ]
    if not found:
        return None
    specificity, earliness, weight = max(found)
    return (weight, specificity, earliness) if weight else None


# The head of a request


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header, its name in lower case, as the server gives it.

    Starlette's Headers take ten times as long.
    """
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def header_value(scope: Scope, name: bytes) -> str | None:
    """Return the first value of a header."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def note(scope: Scope, name: str, value: object) -> None:
    """Keep a fact of a request for the log and the metrics: its operation, viewer, door, code."""
    scope.setdefault("state", {})[name] = value


_MAX_IDEMPOTENCY_KEY_LENGTH: Final = 255
_IDEMPOTENCY_KEY: Final = re.compile(rf"[!-~]{{1,{_MAX_IDEMPOTENCY_KEY_LENGTH}}}")


def idempotency_key(scope: Scope) -> str | None:
    """Return the header Idempotency-Key, None where there is none. Raises InvalidInput."""
    values = header_values(scope, b"idempotency-key")
    if not values:
        return None
    key = values[0] if len(values) == 1 else None
    return require_idempotency_key(key, "The header Idempotency-Key must be sent once, as")


def require_idempotency_key(key: object, rule: str, *path: str) -> str:
    """Return a key as it is. Raise InvalidInput, whose message begins with the rule."""
    if isinstance(key, str) and _IDEMPOTENCY_KEY.fullmatch(key):
        return key
    limit = f"1 to {_MAX_IDEMPOTENCY_KEY_LENGTH} visible ASCII characters without a space"
    raise InvalidInput(f"{rule} {limit}.", path=path)


def request_id(scope: Mapping[str, Any]) -> str:
    """Return the id that `app.middleware.FrontDoor` gave to the request."""
    identifier: str = scope.get("state", {}).get("request_id", "")
    return identifier
