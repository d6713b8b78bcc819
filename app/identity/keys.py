"""The public keys of an identity provider, fetched over HTTP and kept."""

import asyncio
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import httpx2
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from app.errors import Busy, InvalidInput, ServiceError, Unauthenticated
from app.identity.provider import IdentityProvider, mistake_in_url
from app.json_text import parse_json

_log = logging.getLogger(__name__)

RETRY_INTERVAL: Final = timedelta(seconds=5)
"""At least this lies between two fetches, whatever tokens are sent."""

FETCH_SECONDS: Final = 5
_MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 100
_MAX_KID_LENGTH: Final = 256
_RSA_BITS: Final = range(2048, 8192 + 1)
_SIGNING_CURVES: Final = ("P-256", "P-384", "P-521", "Ed25519", "Ed448")


class _Unusable(Exception):
    """What the provider answered is no set of keys."""


@dataclass(slots=True, eq=False)
class ProviderKeys:
    """The keys of one provider, by their `kid`.

    They are fetched when a token names a key that is not among them, and again when they are as old
    as the provider's settings say. Where that fails the old ones stay.
    """

    provider: IdentityProvider
    http: httpx2.AsyncClient
    _keys: dict[str, Key] = field(default_factory=dict)
    _fetched_at: datetime | None = None
    _tried_at: datetime | None = None
    _has_failed: bool = False
    _fetching: asyncio.Task[None] | None = None

    def current(self, kid: str, now: datetime) -> Key | None:
        """Return a key that is known. Old keys are fetched anew in the background.

        Where nobody has asked for so long that they are twice as old as they may be, they count as
        not known, unless the provider is away.
        """
        age = timedelta(seconds=self.provider.jwks_refresh_seconds)
        if self._keys and not _is_within(age, self._fetched_at, now):
            self._begin_fetch(now)
            if not self._has_failed and not _is_within(2 * age, self._fetched_at, now):
                return None
        return self._keys.get(kid)

    async def find(self, kid: str, now: datetime) -> Key:
        """Return a key, after a fetch if it is not known.

        Raises Unauthenticated where the provider has no such key, and Busy where it cannot be
        asked.
        """
        if key := self.current(kid, now):
            return key
        if fetching := self._begin_fetch(now):
            await asyncio.wait([fetching])  # a caller that is cancelled does not end it
        if key := self._keys.get(kid):
            return key
        if self._has_failed:
            raise Busy("The keys of the token's issuer cannot be fetched; send the request again.")
        raise Unauthenticated("The token is signed with a key that its issuer does not publish.")

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _begin_fetch(self, now: datetime) -> asyncio.Task[None] | None:
        """Return the fetch that is under way, a new one, or None soon after the last one."""
        if self._fetching is None and not _is_within(RETRY_INTERVAL, self._tried_at, now):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch(now))
            self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self, now: datetime) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = await self._load()
        except Exception as error:
            self._has_failed = True
            reason = error.message if isinstance(error, ServiceError) else error
            _log.warning("The keys of %s were not fetched: %r", self.provider.issuer, reason)
        else:
            self._fetched_at, self._has_failed = now, False

    async def _load(self) -> dict[str, Key]:
        document = await self._get_json(self.provider.jwks_url or await self._discover())
        keys = dict(_usable_keys(document))
        if not keys:
            raise _Unusable("the set has no key that can verify a signature")
        return keys

    async def _discover(self) -> str:
        document = await self._get_json(self.provider.discovery_url)
        if document.get("issuer") != self.provider.issuer:
            raise _Unusable("the discovery document is that of another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or mistake_in_url(url):
            raise _Unusable("the discovery document has no usable jwks_uri")
        return url

    async def _get_json(self, url: str) -> dict[str, Any]:
        """Return the object at an address. A redirect is an error: the settings name the place."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = b""
        async with self.http.stream("GET", url, headers=headers) as response:
            if response.status_code != httpx2.codes.OK:
                raise _Unusable(f"{url} answers {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise _Unusable(f"{url} answers more than {_MAX_BYTES} bytes")
        document = parse_json(body, url)
        if not isinstance(document, dict):
            raise _Unusable(f"{url} answers no JSON object")
        return document


def _usable_keys(document: dict[str, Any]) -> Iterator[tuple[str, Key]]:
    """Yield the keys of a set that verify signatures. Others are ignored (RFC 7517 section 5)."""
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > _MAX_KEYS:
        raise _Unusable(f"it is not a set of at most {_MAX_KEYS} keys")
    for member in members:
        kid = member.get("kid") if isinstance(member, dict) else None
        if isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_LENGTH and (key := _import(member)):
            yield kid, key


def _import(member: dict[str, Any]) -> Key | None:
    """Return a public key that is strong enough and meant for signatures, or None."""
    try:
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):
            key = import_key(member)
    except (JoseError, InvalidInput, ValueError, TypeError, KeyError):
        return None
    return key if member.get("use", "sig") == "sig" and _is_strong_public_key(key) else None


def _is_strong_public_key(key: Key) -> bool:
    """Return whether a key is public and fit for the algorithms. One that is not secret is none."""
    match key:
        case RSAKey():
            return not key.is_private and key.raw_value.key_size in _RSA_BITS
        case ECKey() | OKPKey():
            return not key.is_private and key.curve_name in _SIGNING_CURVES
        case _:
            return False


def _is_within(duration: timedelta, since: datetime | None, now: datetime) -> bool:
    """Return whether a time is that recent. One in the future is not: the clock stepped back."""
    return since is not None and timedelta() <= now - since < duration
