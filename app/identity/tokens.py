"""Verifies signed JWTs of identity providers (RFC 7519, by joserfc) and reads who sent them.

Only asymmetric algorithms are accepted, and only keys that the provider publishes: a `jwk` or
`jku` in the header of a token is not looked at.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any, Final, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx2
from joserfc import jws
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import Key
from joserfc.jwt import JWTClaimsRegistry

from app.activity.actors import ActorUpdate, mistake_in_name, mistake_in_url
from app.activity.state import ABSENT
from app.activity.values import EPOCH, parse_uuid, truncate_to_milliseconds
from app.auth import Scope, Viewer
from app.errors import InvalidInput, TokenExpired, Unauthenticated
from app.identity.keys import ProviderKeys
from app.identity.provider import ClaimPath, IdentityProvider
from app.json_text import parse_json

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"),
)
MAX_TOKEN_LENGTH: Final = 16 * 1024
_MAX_ACTOR_LENGTH: Final = 1024
_KNOWN_SIZE: Final = 10_000
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
# joserfc takes the types of header parameters for granted: the last four are for `"crit": 5`.
_UNREADABLE: Final = (
    *(JoseError, InvalidInput, RecursionError),
    *(ValueError, TypeError, KeyError, AttributeError),
)
_DOTS: Final = 2


class _Registry(jws.JWSRegistry):
    """Takes header parameters it does not know, as RFC 7515 section 4 demands, and long ones."""

    max_header_length = 8 * 1024

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        """Return an accepted algorithm, without the warning of joserfc at each EdDSA."""
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


_REGISTRY: Final = _Registry()


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature and claims were checked. It is valid until `expires_at`.

    `actor` is what the claims say of its actor. A token that does not say when it was issued has
    the earliest time as `issued_at`.
    """

    viewer: Viewer
    actor: ActorUpdate
    issued_at: datetime
    expires_at: datetime
    kid: str
    key: Key
    keys: ProviderKeys

    def is_key_current(self, now: datetime) -> bool:
        """Return whether the provider's keys, when last fetched, had the one that signed it."""
        return self.keys.current(self.kid, now) is self.key


def is_jwt(token: str) -> bool:
    """Return whether a bearer token has the shape of a signed JWT."""
    return token.count(".") == _DOTS


@dataclass(slots=True, eq=False)
class TokenVerifier:
    """Verifies the tokens of some providers, each once as long as it is remembered.

    At its end as a context it closes its connections.
    """

    http: httpx2.AsyncClient
    providers: Mapping[str, ProviderKeys]
    _known: OrderedDict[bytes, VerifiedToken] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, providers: Sequence[IdentityProvider]) -> "TokenVerifier":
        http = httpx2.AsyncClient()
        return cls(http, {provider.issuer: ProviderKeys(provider, http) for provider in providers})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for keys in self.providers.values():
            await keys.close()
        await self.http.aclose()

    async def verify(self, token: str, now: datetime) -> VerifiedToken:
        """Return a token that is valid.

        Raises Unauthenticated with the check that failed, and Busy where the keys of its issuer
        cannot be fetched.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"The token is longer than {MAX_TOKEN_LENGTH} characters.")
        digest = sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known and known.is_key_current(now):
            if now >= known.expires_at:
                raise TokenExpired
            return known
        verified = await self._verify(token, now)
        self._known[digest] = verified
        if len(self._known) > _KNOWN_SIZE:
            self._known.popitem(last=False)
        return verified

    async def _verify(self, token: str, now: datetime) -> VerifiedToken:
        signed, claims = _parse(token)
        keys = self.providers.get(str(claims.get("iss")))
        if keys is None:
            raise Unauthenticated("The token is not of an issuer that is accepted here.")
        kid = _key_id(signed)
        key = await keys.find(kid, now)
        _check_signature(signed, key)
        _check_claims(claims, keys.provider, now)
        return _verified(claims, keys, kid, key)


def _parse(token: str) -> tuple[jws.CompactSignature, dict[str, Any]]:
    """Return the parts of a token. Nothing in them has been verified."""
    try:
        signed = jws.extract_compact(token.encode(), None, _REGISTRY)
        header, claims = signed.headers(), parse_json(signed.payload, "The token")
    except _UNREADABLE:
        raise _malformed() from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _malformed()
    return signed, claims


def _key_id(signed: jws.CompactSignature) -> str:
    header = signed.headers()
    if header.get("alg") not in ALGORITHMS:
        raise Unauthenticated(
            f"The token is not signed by one of the algorithms {', '.join(ALGORITHMS)}."
        )
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise Unauthenticated("The token does not say in kid which key signed it.")
    return kid


def _check_signature(signed: jws.CompactSignature, key: Key) -> None:
    try:
        if not jws.validate_compact(signed, key, registry=_REGISTRY):
            raise BadSignatureError
    except _UNREADABLE:
        raise Unauthenticated("The signature of the token is not right.") from None


def _check_claims(claims: dict[str, Any], provider: IdentityProvider, now: datetime) -> None:
    registry = JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=provider.leeway_seconds,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "values": list(provider.audiences)},
        exp={"essential": True},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        raise TokenExpired from None
    except MissingClaimError as error:
        raise Unauthenticated(f"The token lacks the claim {error.claim}.") from None
    except ClaimError as error:
        other = f"The claim {error.claim} of the token is not right."
        raise Unauthenticated(_MISTAKES.get(error.claim, other)) from None


_MISTAKES: Final = {
    "aud": "The token is not meant for this service: its audience is another.",
    "nbf": "The token is not valid yet.",
    "iat": "The token was issued in the future.",
}


def _verified(claims: dict[str, Any], keys: ProviderKeys, kid: str, key: Key) -> VerifiedToken:
    provider = keys.provider
    actor = _actor_of(claims, provider)
    name = _claim(claims, provider.name_claim)
    avatar = _claim(claims, provider.avatar_claim)
    known = ActorUpdate(
        _actor_id(provider, actor),
        name if isinstance(name, str) and not mistake_in_name(name) else ABSENT,
        avatar if isinstance(avatar, str) and not mistake_in_url(avatar) else ABSENT,
    )
    viewer = Viewer(
        actor_id=known.id,
        name=known.name if isinstance(known.name, str) else actor,
        scopes=_scopes_of(claims, provider),
        token_id=f"jwt_{_derived_id(provider, actor)}",
    )
    return VerifiedToken(
        viewer=viewer,
        actor=known,
        issued_at=_time(claims.get("iat", 0), EPOCH),
        expires_at=_time(claims["exp"] + provider.leeway_seconds, _LATEST),
        kid=kid,
        key=key,
        keys=keys,
    )


def _time(claim: float, default: datetime) -> datetime:
    """Return the time of a claim in seconds, or a default for one beyond all times."""
    try:
        return max(truncate_to_milliseconds(datetime.fromtimestamp(claim, UTC)), EPOCH)
    except (OverflowError, ValueError, OSError):
        return default


def _actor_of(claims: dict[str, Any], provider: IdentityProvider) -> str:
    actor = _claim(claims, provider.actor_claim)
    if isinstance(actor, str) and 0 < len(actor) <= _MAX_ACTOR_LENGTH and actor.isprintable():
        return actor
    raise Unauthenticated(
        f"The claim {_shown(provider.actor_claim)} of the token, which names the actor, is not a "
        f"text of 1 to {_MAX_ACTOR_LENGTH} printable characters."
    )


def _actor_id(provider: IdentityProvider, actor: str) -> UUID:
    """Return a UUID as it is; another name becomes one that only this issuer can lead to."""
    try:
        return parse_uuid(actor)
    except InvalidInput:
        return _derived_id(provider, actor)


def _derived_id(provider: IdentityProvider, actor: str) -> UUID:
    return uuid5(_namespace(provider.issuer), actor)


@cache
def _namespace(issuer: str) -> UUID:
    return uuid5(NAMESPACE_URL, issuer)


def _scopes_of(claims: dict[str, Any], provider: IdentityProvider) -> frozenset[Scope]:
    """Return the scopes of ours that the token has. Names of no meaning here are ignored."""
    found = _claim(claims, provider.scope_claim)
    names = found.split(" ") if isinstance(found, str) else found
    meanings = provider.scopes
    if meanings is None:
        meanings = {scope.value: (scope,) for scope in Scope}
    return frozenset(
        scope
        for name in (names if isinstance(names, list) else ())
        if isinstance(name, str)
        for scope in meanings.get(name, ())
    )


def _claim(claims: dict[str, Any], path: ClaimPath) -> Any:
    """Return a claim, None where there is none."""
    found: Any = claims
    for name in (path,) if isinstance(path, str) else path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _shown(path: ClaimPath) -> str:
    return path if isinstance(path, str) else ".".join(path)


def _malformed() -> Unauthenticated:
    return Unauthenticated("The token is not a well-formed JWT that is signed.")
