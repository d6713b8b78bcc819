"""The format of bearer tokens, their hashes and scopes, and the viewer. It knows no database.

A token reads `tka_<public id>_<secret>`: a prefix that secret scanners recognise, 8 bytes that
name it in lists and logs, and 32 random bytes of which only the SHA-256 is ever stored.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.errors import Unauthenticated

_TOKEN = re.compile(r"tka_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_MAX_HEADER = 16 * 1024
_BEARER = re.compile(r"bearer +([!-~]+) *", re.ASCII | re.IGNORECASE)


class Scope(StrEnum):
    READ = "activity:read"
    WRITE = "activity:write"
    PRIVATE = "activity:private"
    MODERATE = "activity:moderate"


@dataclass(frozen=True, slots=True)
class Viewer:
    """The actor whose valid token a request carries, with the scopes of that token."""

    actor_id: UUID
    name: str
    scopes: frozenset[Scope]
    token_id: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token in clear text: when it is issued, and while a request is checked. Never stored."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        return f"tka_{self.id}_{self.secret}"

    @property
    def secret_hash(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, secret_hash: str) -> bool:
        return hmac.compare_digest(self.secret_hash, secret_hash)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as it is stored: everything but its secret."""

    id: str
    name: str
    actor_id: UUID
    scopes: tuple[str, ...]
    secret_hash: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def generate_token() -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32))


def parse_bearer(header: str | None) -> str:
    """Return the token of any kind in an `Authorization` header (RFC 6750 section 2.1).

    Raises Unauthenticated.
    """
    if header is None:
        raise Unauthenticated("A bearer token is required: Authorization: Bearer <token>.")
    if len(header) > _MAX_HEADER:
        raise Unauthenticated(f"The Authorization header is longer than {_MAX_HEADER} characters.")
    if not (bearer := _BEARER.fullmatch(header)):
        raise _malformed()
    return bearer[1]


def parse_token(text: str) -> Token:
    """Read a token of this service. Raises Unauthenticated."""
    if not (token := _TOKEN.fullmatch(text)):
        raise _malformed()
    return Token(token[1], token[2])


def _malformed() -> Unauthenticated:
    return Unauthenticated(
        "The Authorization header holds no well-formed bearer token: it must be the word Bearer, "
        "a space, and the whole token."
    )
