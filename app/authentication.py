"""Finds who sent a request by its bearer token.

A token of this service is looked up in the database, and cached briefly. A signed JWT is verified
with the keys of its issuer.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from app.activity.actors import ActorUpdate
from app.auth import IssuedToken, Scope, Token, Viewer, parse_bearer, parse_token
from app.errors import TokenExpired, Unauthenticated
from app.identity.tokens import TokenVerifier, is_jwt
from app.store.actors import hold_actors, record_actor
from app.store.reader import Reader
from app.store.tokens import find_tokens
from app.store.writer import Writer

TOKEN_TTL: Final = timedelta(seconds=2)
"""A cached token is looked up again after this time, so a revocation takes at most as long."""

_KNOWN_SIZE: Final = 10_000
_UNKNOWN_SIZE: Final = 10_000
_USE_RESOLUTION: Final = timedelta(minutes=1)
_MAX_HEADER: Final = 128
"""Longest header to keep, in characters: around a token there may be any number of spaces."""

_OWNER: Final = ""  # of reads made before the token is known

K = TypeVar("K")
T = TypeVar("T")


Authenticate = Callable[[str | None], Awaitable[Viewer]]
"""Returns who sent an `Authorization` header. Raises Unauthenticated and Busy."""


@dataclass(slots=True)
class _KnownToken:
    """A token as it was read; its last use is stored now and then."""

    issued: IssuedToken
    viewer: Viewer
    read_at: datetime
    use_recorded_at: datetime | None

    def is_valid_at(self, now: datetime) -> bool:
        """Whether it was read a moment ago and has not expired."""
        expires_at = self.issued.expires_at
        return _is_fresh(self.read_at, now) and (expires_at is None or now < expires_at)


@dataclass(slots=True, eq=False)
class Authentication:
    """Finds the viewer of an `Authorization` header."""

    reader: Reader
    writer: Writer
    clock: Callable[[], datetime]
    verifier: TokenVerifier | None = None
    _accepted: OrderedDict[str, _KnownToken] = field(default_factory=OrderedDict)
    _known: OrderedDict[str, _KnownToken] = field(default_factory=OrderedDict)
    _unknown: OrderedDict[str, datetime] = field(default_factory=OrderedDict)
    _named: OrderedDict[UUID, datetime] = field(default_factory=OrderedDict)

    async def authenticate(self, authorization: str | None) -> Viewer:
        """Return who sent the header. Raises Unauthenticated and Busy."""
        now = self.clock()
        known = self._accepted.get(authorization or "")
        if known is None or not known.is_valid_at(now):
            bearer = parse_bearer(authorization)
            if self.verifier and is_jwt(bearer):
                verified = await self.verifier.verify(bearer, now)
                self._record_actor(verified.actor, verified.issued_at)
                return verified.viewer
            known = await self._check(parse_token(bearer), now)
            if len(header := authorization or "") <= _MAX_HEADER:
                # By the whole header: the same one again within the moment needs no hashing.
                _keep(self._accepted, header, known, _KNOWN_SIZE)
        self._record_use(known, now)
        return known.viewer

    async def _check(self, token: Token, now: datetime) -> _KnownToken:
        """Return the token if its secret is right and it has not ended. Raises Unauthenticated."""
        known = self._remembered(token, now) or await self._look_up(token, now)
        issued = known.issued
        if not token.matches(issued.secret_hash):
            raise _not_known()
        if issued.revoked_at is not None:
            raise Unauthenticated("The token has been revoked.")
        if issued.expires_at is not None and issued.expires_at <= now:
            raise TokenExpired
        return known

    def _remembered(self, token: Token, now: datetime) -> _KnownToken | None:
        """Return the cached token, or None. Raises Unauthenticated if it is cached as unknown."""
        known = self._known.get(token.id)
        if known and _is_fresh(known.read_at, now):
            return known
        missed_at = self._unknown.get(token.id)
        if missed_at is not None and _is_fresh(missed_at, now):
            raise _not_known()
        return None

    async def _look_up(self, token: Token, now: datetime) -> _KnownToken:
        [issued] = await self.reader.read(
            _OWNER, lambda snapshot: snapshot.load_many(find_tokens, [token.id])
        )
        before = self._known.pop(token.id, None)
        if issued is None:
            _keep(self._unknown, token.id, now, _UNKNOWN_SIZE)
            raise _not_known()
        used_at = before.use_recorded_at if before else issued.last_used_at
        known = _KnownToken(issued, _viewer(issued), now, used_at)
        _keep(self._known, token.id, known, _KNOWN_SIZE)
        return known

    def _record_actor(self, actor: ActorUpdate, issued_at: datetime) -> None:
        """Store what a token says of its actor, unless one that was issued later came before."""
        known_at = self._named.get(actor.id)
        if actor.is_empty or (known_at is not None and issued_at <= known_at):
            return
        _keep(self._named, actor.id, issued_at, _KNOWN_SIZE)
        store = partial(record_actor, update=actor, issued_at=issued_at)
        self.writer.add_chore(store, "the name of an actor", hold_actors)

    def _record_use(self, known: _KnownToken, now: datetime) -> None:
        recorded_at = known.use_recorded_at
        if recorded_at is None or now - recorded_at >= _USE_RESOLUTION:
            known.use_recorded_at = now
            self.writer.record_token_use(known.issued.id, now)


def _viewer(issued: IssuedToken) -> Viewer:
    scopes = frozenset(Scope(scope) for scope in issued.scopes)
    return Viewer(issued.actor_id, issued.name, scopes, issued.id)


def _is_fresh(read_at: datetime, now: datetime) -> bool:
    return timedelta() <= now - read_at < TOKEN_TTL


def _keep(cache: OrderedDict[K, T], key: K, value: T, size: int) -> None:
    """Put a value into a cache; drop the oldest where there are more than `size`."""
    cache.pop(key, None)
    cache[key] = value
    if len(cache) > size:
        cache.popitem(last=False)


def _not_known() -> Unauthenticated:
    return Unauthenticated(
        "The token is not known here: it was copied wrong, or is of another service or database."
    )
