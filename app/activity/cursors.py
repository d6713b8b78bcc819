"""Writes and reads all cursors: positions in a list or a feed.

A cursor of a list holds nothing but what its entry shows. A cursor of a feed holds a `seq`, which
counts changes of private entries too, so it is encrypted: clients can neither read nor forge it.
It also holds how old it is, because one that is too old has expired.
"""

import re
import secrets
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from app.activity.listing import Order, OrderField, Position
from app.activity.state import Activity
from app.activity.values import from_milliseconds, to_milliseconds
from app.errors import CursorExpired, InvalidInput

_PLACE = re.compile(r"(created_at|updated_at) (-?\d{1,15}) ([0-9a-f]{32})", re.ASCII)
_VERSION = re.compile(r"version (\d{1,9})", re.ASCII)


def make_cursor(order: Order, activity: Activity) -> str:
    """Return the cursor of an entry in a list of that order."""
    at = activity.created_at if order.field is OrderField.CREATED_AT else activity.updated_at
    return _encode(f"{order.field.value} {to_milliseconds(at)} {activity.id.hex}")


def parse_cursor(order: Order, cursor: str | None, name: str) -> Position | None:
    """Read a cursor of that order. Raises InvalidInput at `name`."""
    if cursor is None:
        return None
    match = _PLACE.fullmatch(_decode(cursor))
    if not match or match[1] != order.field.value:
        raise InvalidInput(
            f"{name} is not a cursor of this connection in this order.", path=(name,)
        )
    try:
        return Position(from_milliseconds(int(match[2])), UUID(match[3]))
    except OverflowError:
        raise InvalidInput(f"{name} is not a cursor of this connection.", path=(name,)) from None


def make_revision_cursor(version: int) -> str:
    """Return the cursor of a version in the revisions of an entry."""
    return _encode(f"version {version}")


def parse_revision_cursor(cursor: str | None) -> int:
    """Return the version a cursor stands for, 0 for none. Raises InvalidInput at `after`."""
    if cursor is None:
        return 0
    match = _VERSION.fullmatch(_decode(cursor))
    if not match:
        raise InvalidInput("after is not a cursor of this connection.", path=("after",))
    return int(match[1])


def _encode(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode()


def _decode(cursor: str) -> str:
    """Return the text that a cursor encodes, or an empty text if it encodes none."""
    try:
        return b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        return ""


KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SEQ_BYTES: Final = 8
_TIME_BYTES: Final = 6  # milliseconds, signed: until the year 6429
_PURPOSE: Final = b"ticket-activity feed cursor 2 "
_SEALED = re.compile(r"[A-Za-z0-9_-]{56}", re.ASCII)  # nonce, sealed position and tag: 42 bytes


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """The position in a feed after the change `seq`, which was its end at a time.

    For the position of a change that is when the change was written, otherwise when it was read.
    """

    seq: int
    at: datetime


def require_kept(position: FeedPosition, forgotten_seq: int, valid_since: datetime | None) -> None:
    """Raise CursorExpired unless all changes after a position are kept, at `after`.

    `forgotten_seq` is the newest removed change that the viewer could be told of. The age alone
    would do, but for clocks that differ and for entries imported with old times.
    """
    if position.seq < forgotten_seq or (valid_since and position.at < valid_since):
        raise CursorExpired


class FeedCursors:
    """Encrypts and decrypts feed cursors with the key of the database.

    AES-GCM-SIV (RFC 8452) with a random nonce: two cursors of one position differ. If a nonce is
    ever repeated, that shows at most that two cursors are of the same position. The ticket is
    associated data, so a cursor is invalid in the feed of another ticket.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCMSIV(key)
        self.of_change = lru_cache(maxsize=1024)(self.seal)
        """As `seal`, cached: all subscribers who are sent a change may get the same cursor."""

    def seal(self, ticket_id: UUID, position: FeedPosition) -> str:
        """Return a new cursor of a position."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        at = to_milliseconds(position.at).to_bytes(_TIME_BYTES, signed=True)
        plain = position.seq.to_bytes(_SEQ_BYTES) + at
        sealed = self._cipher.encrypt(nonce, plain, _PURPOSE + ticket_id.bytes)
        return urlsafe_b64encode(nonce + sealed).decode()

    def open(self, ticket_id: UUID, cursor: str) -> FeedPosition:
        """Return the position of a cursor of that ticket's feed.

        Raises InvalidInput at `after` for what is no cursor, and CursorExpired for one under
        another key: a restore changes the key, and clients that were connected must read anew.
        """
        if not _SEALED.fullmatch(cursor):
            raise InvalidInput(
                "after is not a cursor of a feed: give one that the service has sent, whole.",
                path=("after",),
            )
        data = b64decode(cursor, altchars=b"-_")
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        try:
            plain = self._cipher.decrypt(nonce, sealed, _PURPOSE + ticket_id.bytes)
        except InvalidTag:
            raise CursorExpired(
                "This cursor is of before a restore of the database, or of another ticket"
            ) from None
        at = int.from_bytes(plain[_SEQ_BYTES:], signed=True)
        return FeedPosition(int.from_bytes(plain[:_SEQ_BYTES]), from_milliseconds(at))
