"""As much of RFC 6455 as a subscriber needs."""

import base64
import os
from typing import Final

TEXT: Final = 0x1
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126


def upgrade_request(protocol: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        "GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    """Build a frame of at most 65,535 bytes, masked with zeros as section 5.3 allows."""
    size = len(payload)
    is_short = size < _TWO_BYTES
    length = bytes([size | _MASKED]) if is_short else b"\xfe" + size.to_bytes(2, "big")
    return bytes([_FINAL | opcode]) + length + bytes(4) + payload


def read_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return opcode and payload of the first frame and what follows; None for a part of a frame.

    Servers do not mask, and ours splits no message.
    """
    if len(data) < 2:  # noqa: PLR2004
        return None
    size, begin = data[1], 2
    if size >= _TWO_BYTES:
        begin += 2 if size == _TWO_BYTES else 8
        size = int.from_bytes(data[2:begin], "big")
    end = begin + size
    return (data[0] & 0x0F, data[begin:end], data[end:]) if len(data) >= end else None
